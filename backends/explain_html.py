"""An explanation as a fragment of HTML that stands alone: inline styles, no script, no picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .explain_numbers import duration, percent
from .explain_text import bounds, indented, sections

if TYPE_CHECKING:
    from .explain import Explanation

TEMPLATE = """\
<div style="font-family: sans-serif; max-width: 60em; line-height: 1.4">
<h3 style="margin: 0 0 0.4em">{{ title }}</h3>
<pre style="background: #f4f4f0; padding: 0.7em; overflow-x: auto; \
color: #222">{{ x.cascade }}</pre>
<pre style="{{ pre }}">{{ about | join("\\n") }}</pre>
{% for title, lines in plain %}
<h4 style="{{ heading }}">{{ title }}</h4>
<pre style="{{ pre }}">{{ lines | join("\\n") }}</pre>
{% endfor %}
{% for kernel, terms in rooflines %}
<h4 style="{{ heading }}">Roofline of {{ x.machine }}: {{ kernel }}</h4>
<table style="border-collapse: collapse; font-family: monospace">
{% for unit, time, share, width, colour in terms %}
<tr>
<td style="min-width: 18ch; padding: 0; text-align: left">{{ unit }}</td>
<td style="min-width: 8ch; padding: 0 2ch 0 0; text-align: right">{{ time }}</td>
<td style="min-width: 5ch; padding: 0 2ch 0 0; text-align: right">{{ share }}</td>
<td style="width: 40ch; padding: 0; text-align: left"><div style="height: 0.8em; \
width: {{ width }}%; background: {{ colour }}"></div></td>
</tr>
{% endfor %}
</table>
{% endfor %}
{% if rooflines %}
<pre style="{{ pre }}; margin-top: 0.5em">{{ bounds | join("\\n") }}</pre>
{% endif %}
</div>
"""

WIDTH = 116
"""Columns of a line, which fit in 60 em."""

PRE = "margin: 0; overflow-x: auto"
HEADING = "margin: 1em 0 0.2em"


def html(x: Explanation) -> str:
    """Return the explanation as HTML; everything of the user's is escaped."""
    from jinja2 import Environment

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    rooflines = [
        (
            k.name,
            [
                (
                    t.unit,
                    duration(t.seconds),
                    "binds" if t.binding else percent(t.share),
                    max(1, round(100 * t.share)),
                    "#b5452c" if t.binding else "#6f8fa8",
                )
                for t in k.terms
            ],
        )
        for k in x.cost.kernels
        if k.terms
    ]
    (title, about), *others = sections(x)
    plain = [
        (y, indented(lines, width=WIDTH)) for y, lines in others if not y.startswith("Roofline of")
    ]
    return page.from_string(TEMPLATE).render(
        x=x,
        title=title,
        about=indented(about, width=WIDTH),
        plain=plain,
        rooflines=rooflines,
        bounds=indented(bounds(x), width=WIDTH),
        pre=PRE,
        heading=HEADING,
    )
