"""PDF, office files, HTML and e-mails become documents, and a file that is hostile or broken is an error in time."""

from __future__ import annotations

import gzip
import importlib.util
import io
import mailbox
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pptx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

from hybridsearch import Document, HybridSearch, read_documents
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.errors import DocumentError, MissingExtraError
from hybridsearch.readers import office, pages_of, worker
from hybridsearch.readers.html import read_html
from hybridsearch.readers.mail import read_eml
from hybridsearch.readers.markdown import table
from hybridsearch.readers.pdf import read_pdf
from hybridsearch.readers.worker import Worker

WORDS = "pump valve pressure housing bolt tighten temperature operate careful maintenance"


def read(path: Path, **options: Any) -> Document:
    (document,) = read_documents(path, **options)
    return document


def pdf(*pages: str, title: str = "", **options: Any) -> bytes:
    """A PDF file with these lines on its pages."""
    kept = io.BytesIO()
    canvas = Canvas(kept, pagesize=A4, **options)
    canvas.setTitle(title or "untitled")
    for page in pages:
        for number, line in enumerate(page.split("\n")):
            canvas.setFont("Helvetica", 18 if line.startswith("# ") else 11)
            canvas.drawString(60, 780 - 14 * number, line.removeprefix("# "))
        canvas.showPage()
    canvas.save()
    return kept.getvalue()


def saved(document: Any) -> bytes:
    kept = io.BytesIO()
    document.save(kept)
    return kept.getvalue()


def word(text: str = "Lift grows.") -> bytes:
    document = docx.Document()
    document.add_paragraph(text)
    return saved(document)


# PDF


def test_each_part_of_a_pdf_has_its_pages(tmp_path: Path) -> None:
    (tmp_path / "manual.pdf").write_bytes(pdf("Open the lid.", "Close the lid\nand turn the", "key to the left."))
    document = read(tmp_path / "manual.pdf")
    assert (document.id, document.title) == ("manual.pdf", "manual")
    assert document.text.split("\f") == ["Open the lid.", "\n\nClose the lid and turn the", "\nkey to the left.", ""]

    def pages(part: str) -> tuple[int, int] | None:
        start = document.text.index(part)
        return pages_of(document, start, start + len(part))

    assert pages("Open") == (1, 1)
    assert pages("turn") == (2, 2)
    assert pages("turn the\f\nkey") == (2, 3)
    assert pages("left.") == pages("left.\f") == (3, 3)
    assert pages_of(document, 0, len(document.text)) == (1, 3)
    assert pages_of(Document("1", "A text without pages."), 0, 3) is None


@given(st.lists(st.text("ab \n", min_size=1), min_size=1, max_size=6), st.data())
def test_pages_are_counted_for_every_part_of_a_text(pages: list[str], data: st.DataObject) -> None:
    text = "".join(f"x{page}x\f" for page in pages)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    found = pages_of(Document("1", text), start, end)
    touched = [text.count("\f", 0, place) + 1 for place in range(start, end) if not text[place].isspace()]
    assert found is not None
    assert found == (touched[0], touched[-1]) if touched else 1 <= found[0] <= found[1] <= len(pages)


def test_paragraphs_and_headings_of_a_pdf(tmp_path: Path) -> None:
    styles = getSampleStyleSheet()
    kept = io.BytesIO()
    SimpleDocTemplate(kept, pagesize=A4, title="Alder manual").build(
        [
            Paragraph("Battery", styles["Heading1"]),
            Paragraph("A full charge takes five hours. " * 12, styles["BodyText"]),
            Paragraph("Charge indoors. " * 20, styles["BodyText"]),
            PageBreak(),
            Paragraph("Brakes", styles["Heading1"]),
            Paragraph("Clean the disc with alcohol.", styles["BodyText"]),
        ]
    )
    (tmp_path / "alder.pdf").write_bytes(kept.getvalue())
    document = read(tmp_path / "alder.pdf")
    assert document.title == "Alder manual"
    assert document.text == (
        f"# Battery\n\n{('A full charge takes five hours. ' * 12).strip()}\n\n{('Charge indoors. ' * 20).strip()}\f\n\n"
        "# Brakes\n\nClean the disc with alcohol.\f"
    )


def test_running_heads_and_feet_are_read_once_and_said(tmp_path: Path) -> None:
    """The head on its first page, and the foot on its last, so that no sentence is divided by them."""
    pages = [
        f"Pump manual, edition 3\n\n\n# Chapter {number}\n\n\nThe text of {name} is here.\nIt has two lines."
        + "\n" * 44
        + f"Acme, page {number} of 4\n{number}"
        for number, name in enumerate(["one", "two", "three", "four"], 1)
    ]
    (tmp_path / "a.pdf").write_bytes(pdf(*pages))
    reader = read_documents(tmp_path / "a.pdf")
    (document,) = reader
    body = [
        f"# Chapter {number}\n\nThe text of {name} is here. It has two lines."
        for number, name in (("1", "one"), ("2", "two"))
    ]
    assert document.text.startswith(f"Pump manual, edition 3\n\n{body[0]}\f\n\n{body[1]}\f\n\n# Chapter 3")
    assert document.text.endswith("It has two lines.\n\nAcme, page 4 of 4\f")
    assert reader.notes == [
        f"{tmp_path / 'a.pdf'} has lines that repeat on its pages and are read once: 'Pump manual, edition 3' "
        "(4 of 4 pages), 'Acme, page 4 of 4' (4 of 4 pages)."
    ]


@pytest.mark.parametrize("last", ["Row, row, row your boat", "See also", "Subtotal 12.50", "4"])
def test_a_last_line_that_repeats_is_no_foot_if_it_stands_in_the_text(last: str) -> None:
    text = read_pdf(pdf(*(f"{chr(10) * 5}Verse {number} sings.\n\n\n{last}" for number in range(4)))).text
    assert text.count(last) == text.count("sings.") == 4


def test_lines_that_differ_by_a_number_stay_if_it_is_not_that_of_the_page() -> None:
    pages = [f"Order {number * 37}\n\n\nSpeed {number * 13}{chr(10) * 50}Total {number * 29}" for number in range(5)]
    found = [f"Order {number * 37} Speed {number * 13} Total {number * 29}\f" for number in range(5)]
    assert read_pdf(pdf(*pages)).text == "\n\n".join(found)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_page_is_read_as_it_is_seen(rotation: int) -> None:
    kept = io.BytesIO()
    canvas = Canvas(kept, pagesize=(600, 600))
    for _ in range(3):
        canvas.setPageRotation(rotation)
        canvas.translate(*{90: (600, 0), 180: (600, 600), 270: (0, 600)}[rotation])
        canvas.rotate(rotation)
        for place, line in [(570, "Acme manual"), (500, "A long line of text."), (486, "And one."), (440, "End.")]:
            canvas.drawString(40, place, line)
        canvas.showPage()
    canvas.save()
    page = "A long line of text. And one.\nEnd.\f"
    assert read_pdf(kept.getvalue()).text == f"Acme manual\n\n{page}\n\n{page}\n\n{page}"


def test_rows_of_a_table_stay_apart_and_form_fields_are_read_and_comments_are_noted(tmp_path: Path) -> None:
    kept = io.BytesIO()
    canvas = Canvas(kept)
    for row, cells in enumerate([("Part", "Torque"), ("Bolt", "24 Nm"), ("Pin of the housing", "8 Nm")]):
        canvas.drawString(60, 700 - 14 * row, cells[0])
        canvas.drawRightString(300, 700 - 14 * row, cells[1])
    canvas.acroForm.textfield(name="name", value="Ada Lovelace", x=60, y=500, width=200, height=20)
    canvas.textAnnotation("Check this.", Rect=[60, 600, 200, 640])
    canvas.save()
    (tmp_path / "a.pdf").write_bytes(kept.getvalue())
    reader = read_documents(tmp_path / "a.pdf")
    text = "Part Torque\nBolt 24 Nm\nPin of the housing 8 Nm\n\nAda Lovelace\f"
    assert [document.text for document in reader] == [text]
    assert reader.notes == [f"{tmp_path / 'a.pdf'} has 1 comment that is not read."]


def test_the_lines_of_lists_and_tables_of_a_pdf_stay_apart() -> None:
    long = "A sentence that fills the whole line from its left edge to the right"
    text = read_pdf(
        pdf(f"{long}\nand goes on.\n\n1. Open it.\n\n2. Close it.\n\nPart Torque\nBolt 12\n{long}\nand on.")
    ).text
    assert text == f"{long} and goes on.\n\n1. Open it.\n2. Close it.\n\nPart Torque\nBolt 12\n{long} and on.\f"


def test_words_divided_at_the_end_of_a_line_are_joined_and_compounds_stay() -> None:
    full = "x" * 60
    text = read_pdf(
        pdf(f"{full} the main-\ntenance of a well-\nknown pump {full}\nis a well-known and hard mainte-\nnance {full}")
    ).text
    assert "maintenance of a well-known pump" in text
    assert "hard maintenance" in text


def test_a_scan_and_an_encrypted_file_say_so(tmp_path: Path) -> None:
    kept = io.BytesIO()
    canvas = Canvas(kept)
    canvas.rect(10, 10, 400, 400, fill=1)
    canvas.save()
    (tmp_path / "scan.pdf").write_bytes(kept.getvalue())
    with pytest.raises(DocumentError, match=r"scan\.pdf: it holds no text.*ocrmypdf"):
        read(tmp_path / "scan.pdf")
    (tmp_path / "secret.pdf").write_bytes(pdf("Secret.", encrypt="password"))
    with pytest.raises(DocumentError, match=r"secret\.pdf: it is encrypted.*qpdf"):
        read(tmp_path / "secret.pdf")


def test_pages_without_text_are_noted(tmp_path: Path) -> None:
    kept = io.BytesIO()
    canvas = Canvas(kept)
    canvas.drawString(60, 700, "A page.")
    canvas.showPage()
    canvas.rect(10, 10, 400, 400, fill=1)
    canvas.save()
    (tmp_path / "half.pdf").write_bytes(kept.getvalue())
    reader = read_documents(tmp_path / "half.pdf")
    assert [document.text for document in reader] == ["A page.\f\n\n\f"]
    assert reader.notes == [f"{tmp_path / 'half.pdf'} has 1 page without text, perhaps scanned."]


# Office files


def test_word_files_become_markdown(tmp_path: Path) -> None:
    document = docx.Document()
    document.core_properties.title = "Alder manual"
    document.add_heading("Battery", 1)
    document.add_paragraph("A full charge takes ").add_run("five").bold = True
    document.add_heading("Parts", 2)
    document.add_paragraph("Pack", style="List Bullet")
    document.add_paragraph("Cell", style="List Bullet 2")
    document.add_paragraph("Open it.", style="List Number")
    document.add_paragraph("Close it.", style="List Number")
    parts = document.add_table(2, 2)
    for row, cells in enumerate([("Part", "Nm | ft"), ("Bolt", "12")]):
        for column, text in enumerate(cells):
            parts.cell(row, column).text = text
    document.add_paragraph("The end.")
    (tmp_path / "alder.docx").write_bytes(saved(document))
    assert read(tmp_path / "alder.docx") == Document(
        "alder.docx",
        "# Battery\n\nA full charge takes five\n\n## Parts\n\n- Pack\n- Cell\n1. Open it.\n2. Close it.\n\n"
        "| Part | Nm \\| ft |\n| --- | --- |\n| Bolt | 12 |\n\nThe end.",
        "Alder manual",
    )


def test_word_keeps_insertions_fields_and_text_boxes_and_leaves_out_deletions() -> None:
    name = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    document = docx.Document()
    paragraph = document.add_paragraph("Kept ")
    for tag, inner, text in (("ins", "t", "inserted "), ("del", "delText", "deleted "), ("sdt", "t", "field")):
        run = f"<w:r><w:{inner}>{text}</w:{inner}></w:r>"
        run = f"<w:sdtContent>{run}</w:sdtContent>" if tag == "sdt" else run
        paragraph._p.append(docx.oxml.parse_xml(f'<w:{tag} xmlns:w="{name}">{run}</w:{tag}>'))
    box = "<w:pict><w:txbxContent><w:p><w:r><w:t>Boxed</w:t></w:r></w:p></w:txbxContent></w:pict>"
    paragraph._p.append(docx.oxml.parse_xml(f'<w:r xmlns:w="{name}">{box}</w:r>'))
    assert office.read_docx(saved(document)).text == "Kept inserted field\n\nBoxed"


def test_lists_of_word_have_the_numbers_that_word_shows() -> None:
    """A list goes on after another one of its kind, unless it begins anew."""
    names = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    anew = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride>'
    levels = "".join(
        f'<w:lvl w:ilvl="{level}"><w:start w:val="{start}"/><w:numFmt w:val="decimal"/></w:lvl>'
        for level, start in enumerate((3, 1))
    )
    document = docx.Document()
    for xml in (
        f'<w:abstractNum {names} w:abstractNumId="99">{levels}</w:abstractNum>',
        *(
            f'<w:num {names} w:numId="{number}"><w:abstractNumId w:val="99"/>{override}</w:num>'
            for number, override in ((91, ""), (92, ""), (93, anew))
        ),
    ):
        document.part.numbering_part.element.append(docx.oxml.parse_xml(xml))
    for number, level in ((91, 0), (91, 1), (91, 0), (91, 1), (92, 0), (93, 0), (93, 0)):
        xml = f'<w:numPr {names}><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>'
        document.add_paragraph("x")._p.get_or_add_pPr().append(docx.oxml.parse_xml(xml))
    assert office.read_docx(saved(document)).text == "3. x\n  1. x\n4. x\n  1. x\n5. x\n7. x\n8. x"


def test_heads_and_feet_of_word_are_read_once_and_comments_are_noted(tmp_path: Path) -> None:
    document = docx.Document()
    for _ in range(2):
        section = document.add_section()
        section.header.is_linked_to_previous = section.footer.is_linked_to_previous = False
        section.header.paragraphs[0].text, section.footer.paragraphs[0].text = "Acme manual", "Confidential"
    document.add_comment(document.add_paragraph("Lift grows.").runs, text="Why?")
    cell = document.add_table(1, 2).cell(0, 1)
    cell.paragraphs[0].text = "Outer"
    inner = cell.add_table(1, 2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "Bolt", "12"
    (tmp_path / "a.docx").write_bytes(saved(document))
    reader = read_documents(tmp_path / "a.docx")
    (found,) = reader
    assert found.text == "Acme manual\n\nLift grows.\n\nOuter\n\n| Bolt | 12 |\n| --- | --- |\n\nConfidential"
    assert reader.notes == [f"{tmp_path / 'a.docx'} has 1 comment that is not read."]


def test_charts_of_slides_are_tables() -> None:
    presentation = pptx.Presentation()
    data = CategoryChartData()
    data.categories = ["East", "West"]
    data.add_series("Sales", (1, 2))
    data.add_series("Cost", (3, 4))
    shapes = presentation.slides.add_slide(presentation.slide_layouts[6]).shapes
    chart = shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, 9999, 9999, data).chart
    chart.chart_title.text_frame.text = "Two years"
    assert office.read_pptx(saved(presentation)).text == (
        "Two years\n\n|  | Sales | Cost |\n| --- | --- | --- |\n| East | 1 | 3 |\n| West | 2 | 4 |\f"
    )


def test_formulas_without_a_value_are_noted_and_numbers_have_the_digits_that_are_shown() -> None:
    book = openpyxl.Workbook()
    book.active.append(["Sum", "=1+1", 0.1 + 0.2, 1e16, 1234567890123456])
    content = office.read_xlsx(saved(book))
    assert content.text.split("\n")[2] == "| Sum | 0.3 | 10000000000000000 | 1234567890123456 |"
    assert content.unread == ["has 1 formula without a stored value. Open and save the file in a spreadsheet program"]


def test_slides_are_pages(tmp_path: Path) -> None:
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Battery"
    frame = slide.placeholders[1].text_frame
    frame.text = "Charge indoors"
    deeper = frame.add_paragraph()
    deeper.text, deeper.level = "Above 5 degrees", 1
    slide.notes_slide.notes_text_frame.text = "Say why."
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "Torque"
    cells = slide.shapes.add_table(1, 2, 0, 0, 100, 100).table
    cells.cell(0, 0).text, cells.cell(0, 1).text = "Bolt", "12"
    (tmp_path / "talk.pptx").write_bytes(saved(presentation))
    document = read(tmp_path / "talk.pptx")
    assert document.title == "Battery"
    assert document.text == (
        "# Battery\n\n- Charge indoors\n  - Above 5 degrees\n\nNotes: Say why.\f\n\n"
        "# Torque\n\n| Bolt | 12 |\n| --- | --- |\f"
    )
    place = document.text.index("Bolt")
    assert pages_of(document, place, place + 4) == (2, 2)


def test_sheets_are_tables_under_their_names(tmp_path: Path) -> None:
    import datetime as dt

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Parts"
    sheet.append(["Part", "Nm", "Since", "Used"])
    sheet.append(["Bolt", 12, dt.date(2024, 3, 1), True])
    sheet.append(["Nut|x", 1.5, dt.datetime(2024, 3, 1, 12, 30), None])
    book.create_sheet("Empty")
    book.create_sheet("More")["C5"] = "Far away"
    (tmp_path / "parts.xlsx").write_bytes(saved(book))
    assert read(tmp_path / "parts.xlsx") == Document(
        "parts.xlsx",
        "# Parts\n\n| Part | Nm | Since | Used |\n| --- | --- | --- | --- |\n| Bolt | 12 | 2024-03-01 | true |\n"
        "| Nut\\|x | 1.5 | 2024-03-01 12:30:00 |  |\n\n# More\n\n| Far away |\n| --- |",
        "parts",
    )


# Markdown


@pytest.mark.parametrize(
    ("raw", "title", "text", "metadata"),
    [
        ("---\ntitle: Wings\ntags: [a, b]\ndate: 2024-03-01\n---\n\n# Lift", "Wings", "# Lift",
         {"tags": ["a", "b"], "date": "2024-03-01"}),
        ("---\r\nyear: 1958\r\n---\r\n# Lift\r\n", "Lift", "# Lift\r\n", {"year": 1958}),
        ('+++\ntitle = "Wings"\ndraft = false\n+++\nLift', "Wings", "Lift", {"draft": False}),
        ("---\nzip: 01234\nstart: 12:30\nlands: [NO, SE]\nphone: +4930\ndraft: true\n---\nLift", "a", "Lift",
         {"zip": "01234", "start": "12:30", "lands": ["NO", "SE"], "phone": "+4930", "draft": True}),
        ("---\nn: -12\nprice: 1.50\nsmall: 1e-3\ncode: 0x1F\nnone: ~\n---\nLift", "a", "Lift",
         {"n": -12, "price": 1.5, "small": 0.001, "code": "0x1F", "none": None}),
        ("---\n\nA rule.\n\n---\nLift", "a", None, {}),
        ("---\nNote: an open rule.\n", "a", None, {}),
    ],
)  # fmt: skip
def test_front_matter_is_title_and_metadata(
    tmp_path: Path, raw: str, title: str, text: str | None, metadata: dict[str, Any]
) -> None:
    (tmp_path / "a.md").write_bytes(raw.encode())
    assert read(tmp_path / "a.md") == Document("a.md", raw if text is None else text, title, metadata)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "front",
    [
        "title: a: b",
        "a: 1\nb: 2\na: 3",
        "m: {a: 1, a: 2}",
        "a: &x [1]\nb: *x",
        f"a: {'[' * 60_000}",
        f"a:\n  {'- ' * 30_000}",
        f"a: {'!x ' * 9999}",
    ],
)
def test_front_matter_that_is_not_valid_stays_and_is_noted(tmp_path: Path, front: str) -> None:
    (tmp_path / "a.md").write_text(f"---\n{front}\n---\nLift")
    reader = read_documents(tmp_path / "a.md")
    assert [document.text for document in reader] == [f"---\n{front}\n---\nLift"]
    assert "a.md has front matter that is not valid and stays in the text" in reader.notes[0]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Guide\n=====\n\n## Linux", "Guide"),
        ("```sh\n# a comment\nmake all\n```\n\n# Install", "Install"),
        ("~~~\n# a comment\n~~~", "a"),
        ("Text.\n\n```\nmake\n```\n\n## Run", "Run"),
        ("# C# and F# ##\n", "C# and F#"),
    ],
)
def test_the_title_of_markdown_is_its_first_heading(tmp_path: Path, text: str, title: str) -> None:
    (tmp_path / "a.md").write_text(text)
    assert read(tmp_path / "a.md").title == title


def test_the_title_of_a_page_is_no_line_of_code() -> None:
    assert read_html(b"<pre># a comment</pre><h2>C#</h2>", None).title == "C#"


def test_an_index_in_the_folder_that_it_is_made_of_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("The old text.")
    (tmp_path / "b.md").write_text("It will be removed.")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text('{"name": "of another program"}')
    (tmp_path / "site" / "c.md").write_text("A page.")
    place = tmp_path / "index"  # comes after the files, so its old documents would replace them
    with HybridSearch({"bm25": BM25()}, place) as search:
        search.index(tmp_path, show_progress_bar=False)
        (tmp_path / "a.md").write_text("The new text.")
        (tmp_path / "b.md").unlink()
        report = search.index(tmp_path, sync=True, show_progress_bar=False)
        assert (report.indexed, report.unchanged, report.removed) == (1, 1, 1)
        assert [document.text for document in search.documents()] == ["The new text.", "A page."]
    assert f"1 folder that holds an index was not read: {place}." in report.notes
    for format in (None, "parquet"):
        with pytest.raises(DocumentError, match="is an index"):
            read_documents(place, format=format)


def test_a_link_to_a_folder_is_not_followed_and_noted(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (tmp_path / "more.md").write_text("More.")
    (folder / "a.md").write_text("Lift.")
    (folder / "b.md").symlink_to(tmp_path / "more.md")
    (folder / "up").symlink_to(tmp_path)
    reader = read_documents(folder)
    assert [document.id for document in reader] == ["a.md", "b.md"]
    assert reader.notes == [f"1 link to a folder was not followed: {folder / 'up'}."]


def test_files_without_text_are_noted(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\ntitle: Wings\n---\n")
    (tmp_path / "b.html").write_text("<title>App</title><script>start()</script>")
    reader = read_documents(tmp_path)
    assert [document.title for document in reader] == ["Wings", "App"]
    assert reader.notes == [f"{tmp_path / name} holds no text." for name in ("a.md", "b.html")]


# HTML


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One <b>bold</b> word.<p>Two", "One bold word.\n\nTwo"),
        ("<h2>Parts &amp; tools</h2>Loose <div>block</div> tail", "## Parts & tools\n\nLoose\n\nblock\n\ntail"),
        ("<ul><li>a<ul><li>b</ul><li>c</ul><ol start=3><li>d</ol>", "- a\n  - b\n- c\n\n3. d"),
        (
            "<table><tr><th>A<th>B<tr><td colspan=2>wide|<tr><td>1<td>2</table>",
            "| A | B |\n| --- | --- |\n| wide\\| |  |\n| 1 | 2 |",
        ),
        ("<table><tr><td><p>A<p>B</td></tr></table>", "A\n\nB"),
        ("<table><td>x<td>y<tr><td>z<td>w</table>", "| x | y |\n| --- | --- |\n| z | w |"),
        (
            "<table>Loose<tr><td rowspan=2>R<td>1<td hidden>no<tr><form><td>2</form><tr hidden><td>no<td>no</table>",
            "Loose\n\n| R | 1 |\n| --- | --- |\n|  | 2 |",
        ),
        ("<ul>Intro<li>a</li>tail<script>no</script><li hidden>no<li style='display:none'>no</ul>", "Intro\n- a\ntail"),
        ("<body><p>in</p></body></html>after<p>more", "in\n\nafter\n\nmore"),
        ("<p>long<wbr>word <math><mi>E</mi><mo>=</mo><mi>m</mi></math></p>", "longword E=m"),
        ("<b>" * 300 + "deep<script>no</script>", "deep"),
        ("<pre>a\n  b</pre><blockquote>q<br>r</blockquote>", "```\na\n  b\n```\n\n> q\n> r"),
        ("<script>x</script><style>y</style><nav>z</nav><p hidden>h<p style='display: none'>i<p>seen", "seen"),
        ("<p>a<img alt='a wing' src=x>b<!-- c --></p>", "a a wing b"),
        ("<svg><text>no</text></svg>text after", "text after"),
        ("", ""),
        ("just text, no tags", "just text, no tags"),
    ],
)  # fmt: skip
def test_html_becomes_markdown(html: str, text: str) -> None:
    assert read_html(html.encode(), None).text == text


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("<title>Größe</title>é".encode(), None),
        ("<title>Größe</title>é".encode("cp1252"), None),
        ('<meta charset="iso-8859-15"><title>Größe</title>é'.encode("iso-8859-15"), None),
        ('<?xml version="1.0" encoding="cp437"?><title>Größe</title>é'.encode("cp437"), None),
        ('<?xml version="1.0" encoding="utf-8"?><meta charset="cp1252"><title>Größe</title>é'.encode("cp1252"), None),
        ("<title>Größe</title>é".encode("utf-16"), None),
        ("\ufeff<title>Größe</title>é".encode(), None),
        ("<title>Größe</title>é".encode("cp437"), "cp437"),
    ],
)
def test_html_is_read_in_its_encoding(raw: bytes, told: str | None) -> None:
    content = read_html(raw, told)
    assert (content.title, content.text) == ("Größe", "é")


def test_html_of_comments_only_has_no_text() -> None:
    assert read_html(b"<!-- nothing -->", None).text == ""
    assert read_eml(b"Subject: a\nContent-Type: text/html\n\n<!-- nothing -->", None).title == "a"


def test_an_encoding_that_is_guessed_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes("<p>é".encode("cp1252"))
    reader = read_documents(tmp_path / "a.html")
    assert [document.text for document in reader] == ["é"]
    assert reader.notes == [
        f"{tmp_path / 'a.html'} does not say its encoding and is read as cp1252. Name it with --encoding."
    ]


def test_html_in_another_encoding_than_it_says_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes('<meta charset="utf-8">é'.encode("cp1252"))
    with pytest.raises(DocumentError, match=r"a\.html: it is not valid utf-8.*--encoding cp1252"):
        read(tmp_path / "a.html")
    assert read(tmp_path / "a.html", encoding="cp1252").text == "é"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(deadline=None)
def test_any_bytes_are_html_or_an_error_of_ours(raw: bytes) -> None:
    try:
        read_html(raw, None)
        read_eml(b"From: a@b.c\nContent-Type: text/html\n\n" + raw, None)
    except DocumentError:
        pass


@given(st.lists(st.lists(st.text("a|\n \\", max_size=4), max_size=4), max_size=4))
def test_a_table_has_as_many_bars_in_each_line(rows: list[list[str]]) -> None:
    bars = {line.replace("\\|", "").count("|") for line in table(rows).split("\n")} - {0}
    assert len(bars) <= 1


# E-mails


def message(**headers: str) -> EmailMessage:
    made = EmailMessage()
    for name, value in headers.items():
        made[name] = value
    return made


def test_an_email_has_its_people_and_its_date_as_metadata(tmp_path: Path) -> None:
    mail = message(
        Subject="Grüße zur Pumpe",
        From="Ann Lee <ann@example.org>",
        To="Bob <bob@example.org>, eve@example.org",
        Date="Fri, 01 Mar 2024 12:30:00 +0100",
    )
    mail.set_content("The pump leaks.\n> Does it?\n")
    mail.add_alternative("<p>The <b>pump</b> leaks.</p>", subtype="html")
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="pump.pdf")
    (tmp_path / "1.eml").write_bytes(bytes(mail))
    reader = read_documents(tmp_path / "1.eml")
    assert list(reader) == [
        Document(
            "1.eml",
            "The pump leaks.\n> Does it?",
            "Grüße zur Pumpe",
            {
                "from": "ann@example.org",
                "from_name": "Ann Lee",
                "to": ["bob@example.org", "eve@example.org"],
                "date": "2024-03-01T11:30:00+00:00",
                "attachments": ["pump.pdf"],
            },
        )
    ]
    assert reader.notes == [f"{tmp_path / '1.eml'} has 1 attachment that is not read."]
    assert read(tmp_path / "1.eml", metadata_fields=["from"]).metadata == {"from": "ann@example.org"}


@pytest.mark.parametrize(
    ("encoding", "told", "unread"),
    [
        ("utf-8", None, []),
        ("cp1252", None, ["does not say its encoding and is read as cp1252. Name it with --encoding"]),
        ("cp1250", "cp1250", []),
    ],
)
def test_a_header_that_is_not_ascii_is_read_as_the_text_is(encoding: str, told: str | None, unread: list[str]) -> None:
    raw = "From: André <a@example.org>\nSubject: Café\n\nIl est lá.".encode(encoding)
    content = read_eml(raw, told)
    assert (content.metadata["from_name"], content.title, content.text) == ("André", "Café", "Il est lá.")
    assert content.unread == unread


def test_headers_have_the_encoding_of_the_text_also_those_of_parts() -> None:
    raw = (
        "From: Иван <a@example.org>\nContent-Type: multipart/mixed; boundary=x\n\n"
        "--x\nContent-Type: text/plain; charset=koi8-r\n\nТекст.\n"
        '--x\nContent-Type: application/pdf\nContent-Disposition: attachment; filename="насос.pdf"\n\n\n'
        "--x\nContent-Type: message/rfc822\n\nSubject: Заказ\nContent-Type: text/plain; charset=koi8-r\n\nДва.\n--x--\n"
    ).encode("koi8-r")
    content = read_eml(raw, None)
    assert content.text == "Текст.\n\n## Заказ\n\nДва."
    assert content.metadata == {"from": "a@example.org", "from_name": "Иван", "attachments": ["насос.pdf"]}
    assert content.unread == ["has 1 attachment that is not read"]


@pytest.mark.parametrize(
    ("header", "name", "addresses"),
    [
        ("Lee, Ann <a@x.org>", "Lee, Ann", ["a@x.org"]),
        ('"Lee, Ann" <a@x.org>, Poe, Dr. Bob <b@x.org>', "Lee, Ann", ["a@x.org", "b@x.org"]),
        ("Ann Lee [Sales] <a@x.org>", "Ann Lee [Sales]", ["a@x.org"]),
        ("Ann @ Sales <a@x.org>", "Ann @ Sales", ["a@x.org"]),
        ("Ann Lee (Sales, (North)) <a@x.org>", "Ann Lee", ["a@x.org"]),
        ("a@x.org (Lee, Ann)", "Lee, Ann", ["a@x.org"]),
        ('"Ann \\"A\\" Lee" <a@x.org>', 'Ann "A" Lee', ["a@x.org"]),
        ("=?utf-8?q?L=C3=A9e=2C?= Ann <a@x.org>", "Lée, Ann", ["a@x.org"]),
        ('"=?utf-8?q?L=C3=A9e?=" <a@x.org>', "Lée", ["a@x.org"]),
        ("Ann\n Lee <a@x.org>,\n b@x.org", "Ann Lee", ["a@x.org", "b@x.org"]),
        ("Sales: a@x.org, Bob <b@x.org>;", "", ["a@x.org", "b@x.org"]),
        ("a@x.org; b@x.org", "", ["a@x.org", "b@x.org"]),
        ("Ann Lee <a@x.org", "Ann Lee", ["a@x.org"]),
        ("root", "", ["root"]),
        ("Ann Lee", "Ann Lee", []),
    ],
)
def test_people_have_the_names_and_addresses_of_the_header(header: str, name: str, addresses: list[str]) -> None:
    found = read_eml(f"From: {header}\nTo: {header}\n\nText.".encode(), None).metadata
    assert (found["from_name"], found["from"]) == (name, (addresses or [""])[0])
    assert found.get("to", []) == addresses


def test_a_date_that_cannot_be_read_is_noted() -> None:
    for date, unread in (("2024-03-01", ["has a date that cannot be read (2024-03-01)"]), ("", [])):
        content = read_eml(f"From: a@example.org\nDate: {date}\n\nText.".encode(), None)
        assert ("date" in content.metadata, content.unread) == (False, unread)


def test_the_people_and_the_date_of_an_email_can_be_filtered(tmp_path: Path) -> None:
    for number, hour in enumerate(("09:00:00 +0900", "09:00:00 -0500")):
        mail = message(Subject="Pump", From="ann@example.org", To="bob@example.org", Date=f"Fri, 01 Mar 2024 {hour}")
        mail.set_content("It leaks.")
        (tmp_path / f"{number}.eml").write_bytes(bytes(mail))
    search = HybridSearch({"bm25": BM25()})
    search.index(tmp_path)
    found = search.search("leaks", filter={"date": {"$gte": "2024-03-01T10:00:00+00:00"}, "to": "bob@example.org"})
    assert [hit.id for hit in found] == ["1.eml"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"Subject: a\nContent-Type: text/html; charset=utf-8\n\n<p>One<p>Two", "One\n\nTwo"),
        (b"Subject: a\n\nplain \xe9", "plain é"),
        (b"Subject: a\nContent-Type: multipart/mixed; boundary=x\n\n--x\n", ""),
        (b"Subject: a\nDate: yesterday\nFrom:\nContent-Type: text/plain; charset=none\n\nbody", "body"),
    ],
)
def test_emails_of_other_kinds(raw: bytes, text: str) -> None:
    assert read_eml(raw, None).text == text


def test_the_whole_of_an_email_is_read(tmp_path: Path) -> None:
    """The text after a picture, HTML if the plain text is blank, and an e-mail that is attached."""
    inner, blank = message(Subject="The order"), message(Subject="Answer")
    inner.set_content("Two pumps.")
    inner.add_attachment(b"x", maintype="image", subtype="png", filename="pump.png")
    blank.set_content(" ")
    blank.add_alternative("<p>Seen", subtype="html")
    mixed = message(Subject="Photos")
    mixed.set_content("Before.")
    mixed.add_attachment(b"x", maintype="image", subtype="png", filename="leak.png")
    mixed.add_attachment("After.", disposition="inline")
    mixed.add_attachment("A file.", filename="log.txt")
    mixed.add_attachment(inner)
    content = read_eml(bytes(mixed), None)
    assert content.text == "Before.\n\nAfter.\n\n## The order\n\nTwo pumps."
    assert content.metadata["attachments"] == ["leak.png", "log.txt", "pump.png"]
    assert read_eml(bytes(blank), None).text == "Seen"
    forwarded = b"Subject: Fwd\nContent-Type: message/rfc822\n\nSubject: Order\n\nTwo pumps."
    assert read_eml(forwarded, None).text == "## Order\n\nTwo pumps."


def test_all_texts_and_attachments_of_nested_parts_are_found() -> None:
    kinds = {"plain": "text/plain\n\nPlain.\n", "html": "text/html\n\n<p>Html.\n"}
    kinds["pdf"] = "application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\n\n"
    kinds["sig"] = "application/pgp-signature; name=a.asc\n\n\n"

    def multipart(kind: str, *parts: str) -> str:
        inner = "".join(f"--{kind}\nContent-Type: {kinds.get(part, part)}" for part in parts)
        return f"multipart/{kind}; boundary={kind}\n\n{inner}--{kind}--\n"

    for raw, text, names in (
        (multipart("signed", multipart("mixed", "plain", "pdf"), "sig"), "Plain.", ["a.pdf", "a.asc"]),
        (multipart("alternative", "plain", multipart("mixed", "html", "pdf")), "Plain.", ["a.pdf"]),
        (multipart("mixed", multipart("signed", "plain", "sig"), "html"), "Plain.\n\nHtml.", ["a.asc"]),
        (kinds["pdf"], "", ["a.pdf"]),
    ):
        content = read_eml(f"Subject: a\nContent-Type: {raw}".encode(), None)
        assert (content.text, content.metadata["attachments"]) == (text, names)


def test_parameters_that_python_cannot_read_do_not_end_the_reading() -> None:
    for disposition in (
        "attachmen(t; filename*=utf-8''a; filename*0=b; filename*1*=x",
        "attachment; filename*=u\x00t''a",
    ):
        raw = f"Subject: a\nContent-Type: application/pdf\nContent-Disposition: {disposition}\n\nx"
        assert read_eml(raw.encode(), None).metadata["attachments"] == ["application/pdf"]


def test_each_message_of_a_mailbox_is_a_document(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "box.mbox")
    for number in range(3):
        mail = message(Subject=f"Pump {number}", From="ann@example.org")
        mail.set_content(f"It leaks.\n\nFrom here to there, {number} times.")
        box.add(mail)
    box.close()
    with (tmp_path / "box.mbox").open("ab") as file:
        file.write(b"From me\n\nno header\n\nFrom me\nSubject: Empty\n\n")
    reader = read_documents(tmp_path / "box.mbox", on_error="skip")
    found = list(reader)
    assert [(document.id, document.title) for document in found] == [
        *((f"box.mbox-{number + 1}", f"Pump {number}") for number in range(3)), ("box.mbox-5", "Empty"),
    ]  # fmt: skip
    assert found[1].text == "It leaks.\n\nFrom here to there, 1 times."
    assert str(reader.skipped[0]).startswith(f"{tmp_path / 'box.mbox'}, message 4: it is not an e-mail")
    assert reader.notes == [f"{tmp_path / 'box.mbox'}, message 5 holds no text."]
    (tmp_path / "box.mbox").write_text("Dear Ann,\n")
    with pytest.raises(DocumentError, match=r"box\.mbox: it is not a mailbox"):
        read(tmp_path / "box.mbox")


# Folders


def mixed(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "a.txt").write_text("Plain text.")
    (folder / "b.jsonl").write_text('{"id": "line", "text": "A line."}\n')
    (folder / "c.csv").write_text("id,text,year\nrow,A row.,1958\n")
    (folder / "d.docx").write_bytes(word("A word file."))
    (folder / "e.html.gz").write_bytes(gzip.compress(b"<h1>Wings</h1>A page."))
    (folder / "sub" / "f.pdf").write_bytes(pdf("A page of PDF."))


def test_a_folder_may_mix_all_kinds_of_files(tmp_path: Path) -> None:
    mixed(tmp_path)
    for name in ("g.zip", "h.json", ".hidden.pdf"):
        (tmp_path / name).write_bytes(b"x")
    reader = read_documents(tmp_path)
    assert [(document.id, document.title) for document in reader] == [
        ("a.txt", "a"), ("line", ""), ("row", ""), ("d.docx", "d"), ("e.html.gz", "Wings"), ("sub/f.pdf", "f"),
    ]  # fmt: skip
    assert reader.types == {"year": "int"}
    assert reader.notes[-1] == (
        "2 files were not read, because no reader is known for the ending of the name: g.zip, h.json."
    )
    assert [document.id for document in read_documents(tmp_path, format="pdf")] == ["sub/f.pdf"]
    (tmp_path / "shop.SQLite").write_bytes(b"x")
    assert list(reader)
    assert reader.notes[-1].startswith("A database is read by a query")
    (tmp_path / "shop.SQLite").unlink()
    (tmp_path / "h.json").unlink()
    assert [document.id for document in read_documents(tmp_path, format="jsonl")] == ["line"]


def test_broken_files_in_a_folder_are_named_and_skipped(tmp_path: Path) -> None:
    mixed(tmp_path)
    (tmp_path / "k.pdf").write_bytes(pdf("A page.")[:300])
    (tmp_path / "l.docx").write_bytes(word()[:500])
    (tmp_path / "m.csv").write_text("a,b\n1,2\n")
    (tmp_path / "n.txt.gz").write_bytes(gzip.compress(b"A text.")[:-6])
    reader = read_documents(tmp_path, on_error="skip")
    assert len(list(reader)) == 6
    assert [Path(bad.file).name for bad in reader.skipped] == ["k.pdf", "l.docx", "m.csv", "n.txt.gz"]
    with pytest.raises(DocumentError, match=r"k\.pdf: it is not a readable PDF file"):
        list(read_documents(tmp_path))


def test_a_missing_extra_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pypdfium2" else find(name))
    mixed(tmp_path)
    with pytest.raises(MissingExtraError, match=r"pypdfium2.*pip install '.*\[files\]'"):
        list(read_documents(tmp_path, on_error="skip"))
    assert [document.id for document in read_documents(tmp_path, format="text")] == ["a.txt"]


def test_texts_need_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_started", lambda self: pytest.fail("a process was started"))
    (tmp_path / "a.txt").write_text("Plain text.")
    assert read(tmp_path).text == "Plain text."


def test_one_process_reads_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    popen = worker.subprocess.Popen
    monkeypatch.setattr(worker.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    for number in range(300):
        (tmp_path / f"{number:03}.html").write_text(f"<title>{number}</title>{WORDS}")
    begin = time.perf_counter()
    assert [document.title for document in read_documents(tmp_path)] == [str(number) for number in range(300)]
    assert len(started) == 1
    assert time.perf_counter() - begin < 10
    assert started[0].poll() is not None


# Hostile files


def test_a_parser_that_hangs_is_ended_and_the_next_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SECONDS", 3)
    (tmp_path / "a.html").write_text("<div>" * 3)
    (tmp_path / "b.docx").write_bytes(word())
    (tmp_path / "c.html").write_text("<p>Read.")
    ask = worker._ask

    def hanging(process: Any, question: dict[str, Any], raw: bytes) -> Any:
        if question["format"] == "docx":
            question = {**question, "size": len(raw) + 1}  # so that the process waits for one more byte
        return ask(process, question, raw)

    monkeypatch.setattr(worker, "_ask", hanging)
    reader = read_documents(tmp_path, on_error="skip")
    assert [document.id for document in reader] == ["a.html", "c.html"]
    assert "b.docx: it takes longer than 3 seconds to parse" in str(reader.skipped[0])


def test_a_time_limit_that_ends_just_as_the_answer_comes_hits_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(threading.Timer):
        def start(self) -> None:
            """It fires when it is cancelled."""

        def cancel(self) -> None:
            super().start()
            self.finished.wait()

    monkeypatch.setattr(worker, "SECONDS", 0)
    monkeypatch.setattr(worker.threading, "Timer", Late)
    for name in "abc":
        (tmp_path / f"{name}.html").write_text("<p>Read.")
    assert [document.id for document in read_documents(tmp_path)] == ["a.html", "b.html", "c.html"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_file_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    """A sheet with one cell far away is a table of many billions of cells."""
    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "near", "far"
    (tmp_path / "a.xlsx").write_bytes(saved(book))
    (tmp_path / "b.docx").write_bytes(word())
    begin = time.perf_counter()
    reader = read_documents(tmp_path, on_error="skip")
    assert [document.id for document in reader] == ["b.docx"]
    assert "memory" in str(reader.skipped[0])
    assert time.perf_counter() - begin < 60


def changed(raw: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """The zip archive with another content of one of its parts."""
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            new.writestr(part, change(old.read(part)) if part == name else old.read(part))
        assert name in old.namelist()
    return kept.getvalue()


def laughing(xml: bytes) -> bytes:
    """The XML with entities that would grow to gigabytes in its texts."""
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    start, end, rest = xml.partition(b"?>")
    body = rest if end else start
    assert b"Lift grows." in body
    body = body.replace(b"Lift grows.", b"before &l11; after")
    return b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "laugh">' + levels.encode() + b"]>" + body


def outside(xml: bytes) -> bytes:
    """The XML with the content of another file in its texts."""
    body = xml.partition(b"?>")[2]
    return b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l SYSTEM "file:///etc/hostname">]>' + body.replace(
        b"Lift grows.", b"before &l; after"
    )


def slides() -> bytes:
    presentation = pptx.Presentation()
    presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = "Lift grows."
    return saved(presentation)


def sheet() -> bytes:
    book = openpyxl.Workbook()
    book.active["A1"] = "Lift grows."
    return saved(book)


OFFICE = [
    ("a.docx", word, "word/document.xml"),
    ("a.pptx", slides, "ppt/slides/slide1.xml"),
    ("a.xlsx", sheet, "xl/worksheets/sheet1.xml"),
]


@pytest.mark.parametrize("change", [laughing, outside])
@pytest.mark.parametrize(("name", "make", "part"), OFFICE)
def test_entities_are_not_expanded(
    tmp_path: Path, name: str, make: Callable[[], bytes], part: str, change: Callable[[bytes], bytes]
) -> None:
    (tmp_path / name).write_bytes(changed(make(), part, change))
    begin = time.perf_counter()
    try:
        text = read(tmp_path / name).text
    except DocumentError:
        text = ""
    assert len(text) < 500
    assert Path("/etc/hostname").read_text().strip() not in text
    assert time.perf_counter() - begin < 20


def test_entities_of_html_are_not_expanded() -> None:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    html = f'<!DOCTYPE html [<!ENTITY l0 "laugh">{levels}]><p>before &l11; after'
    assert len(read_html(html.encode(), None).text) < 5000


def test_a_zip_bomb_is_refused_by_its_list_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office, "LARGEST_PARTS", 2**20)
    with pytest.raises(DocumentError, match=r"more than the limit of 1,048,576"):
        office.read_docx(changed(word(), "word/document.xml", lambda xml: xml + b" " * 2**21))
    monkeypatch.setattr(office, "MOST_PARTS", 3)
    with pytest.raises(DocumentError, match=r"parts, more than the limit of 3"):
        office.read_docx(word())


@pytest.mark.parametrize(("name", "make", "part"), OFFICE)
def test_parts_that_unpack_to_much_are_bounded(tmp_path: Path, name: str, make: Callable[[], bytes], part: str) -> None:
    (tmp_path / name).write_bytes(make())
    with zipfile.ZipFile(tmp_path / name, "a") as archive:
        archive.getinfo(part).file_size = 600 * 2**20
        archive.comment = b"lets the list of parts be written again"
    with pytest.raises(DocumentError, match="when they are decompressed, more than the limit of 536,870,912"):
        read(tmp_path / name)


def test_deeply_nested_html_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<div>" * 1500 + "deep" + "</div>" * 1500 + "<p>after")
    assert read(tmp_path / "a.html").text.split() == ["deep", "after"]
    (tmp_path / "a.html").write_text("<b><div><ul><li>" * 100_000 + "deep")
    begin = time.perf_counter()
    with pytest.raises(DocumentError, match=r"a\.html: its elements are nested too deeply"):
        read(tmp_path / "a.html")
    assert time.perf_counter() - begin < 100


def test_a_pdf_whose_pages_contain_each_other_ends(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Count 1000000/Kids[2 0 R 3 0 R 2 0 R]>>endobj\n"
        b"3 0 obj<</Type/Pages/Parent 2 0 R/Count 1/Kids[2 0 R]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    )
    begin = time.perf_counter()
    with pytest.raises(DocumentError, match=r"a\.pdf: "):
        read(tmp_path / "a.pdf")
    assert time.perf_counter() - begin < 70


def test_a_file_may_lie_about_its_format(tmp_path: Path) -> None:
    contents = [b"", b"\0" * 100, b"PK\x03\x04" + b"x" * 100, b"\xd0\xcf\x11\xe0" + b"x" * 1000, b"%PDF-1.4\n"]
    for number, raw in enumerate(contents):
        for ending in ("pdf", "docx", "pptx", "xlsx", "eml"):
            (tmp_path / f"{number}.{ending}").write_bytes(raw)
    (tmp_path / "a.txt").write_text("Read.")
    reader = read_documents(tmp_path, on_error="skip")
    assert [document.id for document in reader] == ["a.txt"]
    assert len(reader.skipped) == 25


def test_flipped_bytes_raise_only_our_errors(tmp_path: Path) -> None:
    import random

    chance = random.Random(0)
    mail = message(Subject="Pump", From="ann@example.org")
    mail.set_content("It leaks.")
    files = {"a.pdf": pdf("A page."), "a.docx": word(), "a.pptx": slides(), "a.xlsx": sheet(), "a.eml": bytes(mail)}
    for name, raw in files.items():
        for number in range(12):
            flipped = bytearray(raw)
            for _ in range(chance.choice([1, 5, 50])):
                flipped[chance.randrange(len(flipped))] = chance.randrange(256)
            (tmp_path / f"{number}-{name}").write_bytes(bytes(flipped))
    reader = read_documents(tmp_path, on_error="skip")
    found = list(reader)
    assert len(found) + len(reader.skipped) == 60


@pytest.mark.slow
def test_a_small_pdf_that_unpacks_to_a_gigabyte_is_refused(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    line = b"BT /F 12 Tf 10 10 Td (Hello) Tj ET\n" * 25_000
    content = zlib.compress(b"".join([*(packer.compress(line) for _ in range(1200)), packer.flush()]), 9)
    objects = [
        b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj",
        b"2 0 obj<</Type/Pages/Count 1/Kids[3 0 R]>>endobj",
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 500 500]/Resources<</Font<</F 5 0 R>>>>/Contents 4 0 R>>endobj",
        b"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj",
        b"4 0 obj<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream" % len(content),
    ]
    raw = b"%PDF-1.4\n" + b"\n".join(objects) + b"\n" + content + b"\nendstream endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    assert len(raw) < 100_000
    (tmp_path / "bomb.pdf").write_bytes(raw)
    with pytest.raises(DocumentError, match=r"bomb\.pdf: (the parser crashed|it takes longer|it needs more)"):
        read(tmp_path / "bomb.pdf")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_pages_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SECONDS", 900)  # it takes 21 seconds of one core, and 0.4 GB of memory
    (tmp_path / "long.pdf").write_bytes(pdf(*(f"# Chapter {n}\n" + "\n".join([WORDS] * 40) for n in range(10_000))))
    document = read(tmp_path / "long.pdf")
    assert document.text.count("\f") == document.text.count("# Chapter") == 10_000
    assert pages_of(document, len(document.text) - 50, len(document.text)) == (10_000, 10_000)
