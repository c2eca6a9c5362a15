"""What tests read a generated page with: its tags, and a complaint about one that is not closed."""

from html.parser import HTMLParser


class WellFormed(HTMLParser):
    """A page; what of it a test looks at is gathered by `look`."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def look(self, tag, attrs):
        """Called with every tag that begins."""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.look(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
