"""Draws the states of a run for ARCHITECTURE.md from the table of moves: `python docs/state_diagram.py`."""

import sys

from upwell.states import MOVES, TERMINAL, StateType


def draw() -> str:
    """The diagram in Mermaid's language, without moves to the same type, such as a new reason to wait."""
    lines = ["stateDiagram-v2", f"    [*] --> {StateType.PENDING}", f"    [*] --> {StateType.SCHEDULED}"]
    for before in StateType:
        lines += [f"    {before} --> {after}" for after in StateType if after in MOVES[before] and after != before]
    lines += [f"    {state} --> [*]" for state in StateType if state in TERMINAL]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{draw()}\n")
