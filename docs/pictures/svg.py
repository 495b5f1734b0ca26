"""Shapes of an SVG as text. Attributes alone, no style sheet and no foreignObject: that is what GitHub's sanitizer leaves as it is."""

from xml.sax.saxutils import escape, quoteattr

SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', monospace"
INK, DIM, PAPER, CARD, LINE, ACCENT = "#16202b", "#5d6b7a", "#f4f6f8", "#ffffff", "#dde3e9", "#0f6cbd"


def attributes(**given):
    return "".join(f" {name.replace('_', '-')}={quoteattr(str(value))}" for name, value in given.items())


def rectangle(x, y, width, height, **given):
    return f"<rect{attributes(x=x, y=y, width=width, height=height, **given)}/>"


def text(x, y, content, **given):
    return f"<text{attributes(x=x, y=y, **{'fill': INK, 'font_size': 13, **given})}>{escape(content)}</text>"


def path(d, **given):
    return f"<path{attributes(d=d, **{'fill': 'none', 'stroke': DIM, **given})}/>"


def document(width, height, title, shapes):
    """The whole file. `title` is what a screen reader says."""
    head = attributes(xmlns="http://www.w3.org/2000/svg", width=width, height=height, viewBox=f"0 0 {width} {height}",
                      role="img", font_family=SANS)
    paper = rectangle(0, 0, width, height, fill=PAPER, rx=8)
    return "\n".join([f"<svg{head}>", f"<title>{escape(title)}</title>", paper, *shapes, "</svg>", ""])
