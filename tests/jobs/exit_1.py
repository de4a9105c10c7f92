"""Fails with an exception of its own."""


def train() -> None:
    raise ValueError("the loss is not a number")


if __name__ == "__main__":
    train()
