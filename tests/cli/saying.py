"""What `up` would print."""


class Said(list[str]):
    """Takes what is said."""

    def __call__(self, line: str) -> None:
        self.append(line)
