"""The parts of frameworks, and the server for agents. Each module needs the extra of its name."""
