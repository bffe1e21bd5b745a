"""A flow that is found by its module and name."""

from upwell import flow

greeted: list[int] = []


@flow(durable=True)
def greets(x: int) -> str:
    greeted.append(x)
    return f"hello {x}"
