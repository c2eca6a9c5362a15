"""A short document in sections, as Markdown for terminals and MLflow, and as one page of HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows under headings."""

    headings: Row
    rows: Sequence[Row]


@dataclass(frozen=True)
class Section:
    """A heading, and below it, each if it is there: sentences, points, a table."""

    title: str
    sentences: Sequence[str] = ()
    points: Sequence[str] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Document:
    """A title and sections."""

    title: str
    sections: Sequence[Section]

    def to_markdown(self) -> str:
        """As Markdown."""
        parts = [f"# {self.title}"]
        for section in self.sections:
            parts.append(f"## {section.title}")
            parts += [*section.sentences]
            if section.points:
                parts.append("\n".join(f"- {point}" for point in section.points))
            if section.table is not None:
                parts.append(_markdown_table(section.table))
        return "\n\n".join(parts) + "\n"

    def to_html(self) -> str:
        """As a page."""
        parts = [f"<h1>{escape(self.title)}</h1>"]
        for section in self.sections:
            parts.append(f"<h2>{escape(section.title)}</h2>")
            parts += [f"<p>{escape(sentence)}</p>" for sentence in section.sentences]
            if section.points:
                parts.append("<ul>" + "".join(f"<li>{escape(point)}</li>" for point in section.points) + "</ul>")
            if section.table is not None:
                parts.append(_html_table(section.table))
        return _PAGE.format(title=escape(self.title), body="\n".join(parts))


def _markdown_table(table: Table) -> str:
    lines = [table.headings, tuple("---" for _ in table.headings), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.headings)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1 {{ font-size: 1.6rem; }}
h2 {{ font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #eee; }}
</style></head><body>
{body}
</body></html>
"""
