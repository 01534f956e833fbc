"""Train a dense model in two ways with the same result: by one call, and by a loop in PyTorch that shows its steps.

Both use the multiple negatives ranking loss (Henderson et al., arXiv:1705.00652). It makes each question nearest to its
own answer, among all answers of the batch.

Run it: `python examples/train_dense.py [MODEL]`
"""

from __future__ import annotations

import copy
import sys
import tempfile

import datasets
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.util import batch_to_device

import hybridsearch as hs
from hybridsearch.training.settings import TrainingSettings

PAIRS = {
    "What is cephalalgia?": "A headache, whatever its cause.",
    "What does pyrexia mean?": "Fever: the body is warmer than 38 degrees.",
    "What is epistaxis?": "Bleeding from the nose.",
    "What is meant by pruritus?": "Itching of the skin.",
    "What is dyspnoea?": "Shortness of breath.",
    "What does emesis mean?": "Vomiting.",
    "What is alopecia?": "Loss of hair, in spots or everywhere.",
    "What is tachycardia?": "A heart that beats faster than 100 times a minute.",
    "What does dysphagia mean?": "Trouble with swallowing.",
    "What is a haematoma?": "A bruise: blood that has left its vessels.",
    "What is myalgia?": "Pain in the muscles.",
    "What does oedema mean?": "A swelling by water in the tissue.",
}
EPOCHS, BATCH, LEARNING_RATE, SEED = 3, 4, 3e-5, 0
SCALE = 20.0  # factor of the cosines before the softmax


def by_one_call(model: SentenceTransformer) -> list[float]:
    """Train `model` in place by one call. Returns the mean loss of each epoch."""
    rows = [{"anchor": question, "positive": answer} for question, answer in PAIRS.items()]
    settings = TrainingSettings(
        epochs=EPOCHS, batch_size=BATCH, learning_rate=LEARNING_RATE, seed=SEED, precision="fp32"
    )
    with tempfile.TemporaryDirectory() as folder:
        result = hs.train_dense(model, rows, folder, settings=settings)
    return [parts["loss"] for _, parts in result.history.losses]


def by_hand(model: SentenceTransformer) -> list[float]:
    """Train `model` in place, step by step. Returns the mean loss of each epoch."""
    rows = datasets.Dataset.from_dict({"anchor": list(PAIRS), "positive": list(PAIRS.values())})
    sampler = NoDuplicatesBatchSampler(rows, BATCH, drop_last=False, generator=torch.Generator(), seed=SEED)
    steps = EPOCHS * len(sampler)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, -(-steps // 10), steps)
    losses = []
    model.train()
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for batch in sampler:
            questions, answers = (_embed(model, rows[batch][column]) for column in ("anchor", "positive"))
            cosines = torch.nn.functional.cosine_similarity(questions[:, None], answers[None, :], dim=-1)
            loss = torch.nn.functional.cross_entropy(SCALE * cosines, torch.arange(len(batch), device=cosines.device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    model.eval()
    return torch.tensor(losses).reshape(EPOCHS, -1).mean(dim=1).tolist()


def _embed(model: SentenceTransformer, texts: list[str]) -> torch.Tensor:
    features = batch_to_device(model.preprocess(texts), model.device)
    return model(features)["sentence_embedding"]


name = sys.argv[1] if len(sys.argv) > 1 else "sentence-transformers/all-MiniLM-L6-v2"
model = SentenceTransformer(name)
for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0  # the two ways would draw the random numbers of dropout in different orders
other = copy.deepcopy(model)

one, two = by_one_call(model), by_hand(other)
print("epoch  loss by one call  by hand")
for epoch, losses in enumerate(zip(one, two, strict=True), 1):
    print(f"{epoch:5}  {losses[0]:16.4f}  {losses[1]:7.4f}")
answers = list(PAIRS.values())
difference = abs(model.encode(answers) - other.encode(answers)).max()
print(f"\nLargest difference of two embeddings: {difference:.0e}")
