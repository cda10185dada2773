"""What can go wrong in the lab, said in one sentence with its remedy."""


class LabError(Exception):
    """A refusal or failure of the lab.

    Attributes:
        message: One sentence: what failed and what was found.
        remedy: What to do about it, empty when there is nothing to say.
        evidence: Output of the tool that failed, for people who look closer.
    """

    def __init__(self, message: str, *, remedy: str = "", evidence: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.evidence = evidence

    def __str__(self) -> str:
        parts = [self.message, self.evidence.strip(), self.remedy]
        return "\n".join(part for part in parts if part)
