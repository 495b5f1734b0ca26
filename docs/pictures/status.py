"""The status page of a real host as an SVG: its own words, numbers and colours, drawn as a browser lays them out at 1080 pixels."""

import contextlib
import html.parser
import json
import pathlib
import re
import socket
import subprocess
import tempfile
import textwrap
import threading
import time
import urllib.error
import urllib.request

from svg import MONO, document, path, rectangle, text

WIDTH, MARGIN, GAP = 1080, 16, 12
SECONDS = 120  # of traffic: what the curve shows
PATIENCE = 60  # seconds for anything that should take none
SHOWN_FAILURES = 6
# What is asked for once a second, beside the requests that succeed.
BAD = ("/trap", "/silent", "/large-header")


class Page(html.parser.HTMLParser):
    """The parts of the page, in their order: what is drawn of it is what is read here."""

    def __init__(self, page):
        super().__init__()
        self.name, self.phase, self.digest, self.cards, self.sections, self.stack = "", "", "", [], [], []
        self.colours = dict(re.findall(r"--(\w+): (#\w+)", page[: page.index("@media")]))
        self.feed(page)

    def handle_starttag(self, tag, given):
        given = dict(given)
        if tag in ("meta", "polyline"):
            if tag == "polyline":
                self.sections[-1]["curve"] = given["points"]
            return
        self.stack.append((tag, given.get("class") or ""))
        if self.stack[-1] == ("div", "card"):
            self.cards.append({"value": "", "label": ""})
        elif tag == "section":
            self.sections.append({"title": "", "rows": [], "text": ""})
        elif tag == "tr":
            self.sections[-1]["rows"].append([])
        elif tag in ("td", "th"):
            self.sections[-1]["rows"][-1].append({"tag": tag, "class": given.get("class") or "", "text": ""})
        elif tag == "i":
            self.cards[-1]["share"] = float(re.search(r"width:([\d.]+)%", given["style"])[1])

    def handle_startendtag(self, tag, given):
        self.handle_starttag(tag, given)

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tags = [tag for tag, _ in self.stack]
        if "main" not in tags or not data.strip():
            return
        if "h1" in tags:
            self.name += data
        elif "header" in tags:
            if tags[-1] == "code":
                self.digest += data
            else:
                self.phase += data
        elif tags[-1] in ("b", "span"):
            self.cards[-1]["value" if tags[-1] == "b" else "label"] += data
        elif "h2" in tags:
            self.sections[-1]["title"] += data
        elif "table" in tags:
            self.sections[-1]["rows"][-1][-1]["text"] += data
            if tags[-1] == "code":
                self.sections[-1]["rows"][-1][-1]["code"] = True
        else:
            self.sections[-1]["text"] += data


def drawn(page):
    """The picture. Columns of a table are as wide as their longest text, as in a browser."""
    colour, inner = page.colours, WIDTH - 2 * MARGIN
    good, ink, dim, line = (colour[name] for name in ("good", "ink", "dim", "line"))
    shapes = [rectangle(0, 0, WIDTH, "100%", fill=colour["paper"], rx=8),
              text(MARGIN, 44, page.name, font_size=24, font_weight=700, fill=ink)]
    x = MARGIN + 17.6 * len(page.name) + 12
    wide = 8 * len(page.phase) + 24
    shapes += [rectangle(x, 26, wide, 23, rx=11.5, fill=good if page.phase == "ready" else colour["guest"]),
               text(x + wide / 2, 42, page.phase, font_weight=600, fill="#ffffff", text_anchor="middle"),
               text(x + wide + 14, 43, page.digest, fill=dim, font_family=MONO)]
    y, width = 66, (inner - GAP * (len(page.cards) - 1)) / len(page.cards)
    for place, card in enumerate(page.cards):
        x = MARGIN + place * (width + GAP)
        shapes += [rectangle(f"{x:.1f}", y, f"{width:.1f}", 94, rx=10, fill=colour["card"], stroke=line),
                   text(f"{x + 14:.1f}", y + 36, card["value"], font_size=25, font_weight=700, fill=ink),
                   *(text(f"{x + 14:.1f}", y + 58 + 18 * at, part, fill=dim)
                     for at, part in enumerate(textwrap.wrap(card["label"], 19)))]
        if "share" in card:
            shapes += [rectangle(f"{x + 14:.1f}", y + 70, f"{width - 28:.1f}", 6, rx=3, fill=line),
                       rectangle(f"{x + 14:.1f}", y + 70, f"{(width - 28) * card['share'] / 100:.1f}", 6, rx=3, fill=colour["accent"])]
    y += 94 + GAP
    for section in page.sections:
        rows = section["rows"][: SHOWN_FAILURES + 1] if section["title"] == "Last failures" else section["rows"]
        height = 44 + (74 if "curve" in section else 0) + 30 * len(rows) + (24 if section["text"] else 0)
        shapes += [rectangle(MARGIN, y, inner, height, rx=10, fill=colour["card"], stroke=line),
                   text(MARGIN + 16, y + 27, section["title"].upper(), fill=dim, letter_spacing=".06em", font_weight=700)]
        if "curve" in section:
            points = [tuple(map(float, point.split(","))) for point in section["curve"].split()]
            across = "L".join(f"{MARGIN + 16 + x * (inner - 32) / 120:.1f} {y + 40 + at:.1f}" for x, at in points)
            if points:
                shapes.append(path(f"M{across}", stroke=colour["accent"], stroke_width=2))
        columns = [max(len(row[place]["text"]) for row in rows) for place in range(len(rows[0]))] if rows else []
        numbers = [place for place in range(len(columns)) if rows[0][place]["class"] == "n"]
        for at, row in enumerate(rows):
            base = y + 60 + 30 * at
            if at:
                shapes.append(path(f"M{MARGIN + 16} {base - 20}H{WIDTH - MARGIN - 16}", stroke=line))
            x = MARGIN + 16
            for place, cell in enumerate(row):
                look = {"fill": colour.get(cell["class"], good if cell["class"] == "ok" else ink), "font_size": 14}
                if "code" in cell:
                    look = {"fill": dim, "font_size": 13, "font_family": MONO}
                if cell["tag"] == "th":
                    look = {"fill": dim, "font_size": 13}
                if cell["class"] == "n":
                    end = WIDTH - MARGIN - 36 - 120 * (len(numbers) - 1 - numbers.index(place))
                    shapes.append(text(end, base, cell["text"], text_anchor="end", **look))
                else:
                    shapes.append(text(f"{x:.1f}", base, cell["text"], **look))
                x += 8.2 * max(columns[place], 6) + 26
        if section["text"]:
            shapes.append(text(MARGIN + 16, y + 52, section["text"], fill=dim, font_family=MONO))
        y += height + GAP
    shapes[0] = rectangle(0, 0, WIDTH, y + 4, fill=colour["paper"], rx=8)
    return document(WIDTH, y + 4, "The status page: rate, latency, saturation, outcomes by reason, the last failures", shapes)


def parts(picture):
    """What has to stay the same from one run to another: the words with their colours. Numbers, ids and the curve do not."""
    found = set()
    for colour, words in re.findall(r'<text[^>]* fill="([^"]*)"[^>]*>([^<]*)</text>', picture):
        words = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|sha256:[0-9a-f]+", "ID", words)
        words = re.sub(r"^menace(03)?\.wasm$", "NAME", re.sub(r"wasi:http/\w+", "WORLD", words))
        found.add(f"{colour} " + re.sub(r"(\d[\d.]*|–)( (ms|s|min)\b)?", "#", words))
    found.update(re.findall(r'(?:fill|stroke)="#\w+"', picture))
    return sorted(found)


def ask(address, path):
    """Body of the answer, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=PATIENCE) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.read().decode()


def without_host(address):
    """A request that is the client's fault."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        connection.recv(4096)


@contextlib.contextmanager
def serving(host, component):
    """A host, with the addresses of its listeners."""
    command = [host, "serve", component, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--access-log", "off",
               "--log-format", "json"]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            until = time.monotonic() + PATIENCE
            while True:
                log.seek(0)
                ready = [line for line in log.read().splitlines() if '"ready"' in line]
                if ready:
                    break
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise SystemExit(f"the host is not ready:\n{log.read()}")
                time.sleep(0.05)
            yield json.loads(ready[0])["listen"], json.loads(ready[0])["admin"]
        finally:
            process.terminate()


def taken(host, component, seconds):
    """The page after so many seconds of traffic, in which every kind of outcome is there."""
    with serving(host, component) as (traffic, admin):
        ending = threading.Event()

        def load():
            with contextlib.suppress(OSError):
                while not ending.is_set():
                    ask(traffic, "/")
                    ending.wait(0.002 + 0.004 * (time.monotonic() % 30 > 20))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            started = time.monotonic()
            while True:
                for bad in BAD:
                    ask(traffic, bad)
                without_host(traffic)
                page = ask(admin, "/")
                rate = re.search(r"<b>(\d+)</b><span>requests a second", page)
                if rate and int(rate[1]) > 0 and time.monotonic() - started >= seconds:
                    return page
                if time.monotonic() - started > seconds + PATIENCE:
                    raise SystemExit("the status page never shows a rate")
                ending.wait(1 if seconds else 0.2)
        finally:
            ending.set()
            for thread in threads:
                thread.join()


def main(file: pathlib.Path, host, component, check):
    fresh = drawn(Page(taken(host, component, 0 if check else SECONDS)))
    if not check:
        file.write_text(fresh)
        return
    old, new = (parts(picture) for picture in (file.read_text(), fresh))
    if old != new:
        difference = [f"- {part}" for part in old if part not in new] + [f"+ {part}" for part in new if part not in old]
        raise SystemExit("\n".join(["docs/pictures/status.svg shows another page than the host has; `make docs` draws it anew:", *difference]))
