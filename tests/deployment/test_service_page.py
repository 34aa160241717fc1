"""The page for people, in a real browser before the real service: what is seen, refused and never mixed up."""

import base64
import re
import secrets
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect

from medic.data.images.preprocess import Preprocessing
from medic.deployment.bundle import package
from medic.deployment.export import export
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import MultiLabel
from medic.task import CHEST_XRAY, RETINOPATHY

# No classes: xdist deals tests out by class, and all of these share one browser and two services.
pytestmark = [pytest.mark.browser, pytest.mark.servers]

TOKEN = secrets.token_urlsafe()
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}

CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    const linear = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return { value: 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2], a };
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = light(getComputedStyle(one).backgroundColor);
      if (found.a === 1) return found.value;
    }
    throw new Error("no ground");
  };
  const shown = [...document.querySelectorAll("body *")].filter((one) =>
    one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return shown.map((one) => {
    const [a, b] = [light(getComputedStyle(one).color).value, ground(one)].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), one.textContent.trim().slice(0, 40)];
  });
}"""


@pytest.fixture(scope="module")
def grades(bundle, serving) -> Iterator[str]:
    """The address of a service that grades drawn discs."""
    with serving(bundle, "--workers", "1") as service:
        yield service.url


@pytest.fixture(scope="module")
def findings(tmp_path_factory, pixels, photographs, about, serving) -> Iterator[str]:
    """The address of a service for 14 findings that asks for a token; it was taught nothing."""
    folder = tmp_path_factory.mktemp("findings")
    torch.manual_seed(2)
    model = Classifier(CHEST_XRAY, "squeezenet1_1", MultiLabel(), Preprocessing(size=96), image_size=64).eval()
    model.thresholds = (0.3,) * 7 + (0.9,) * 7
    exported = export(model, folder / "model.onnx", pixels[:4])
    bundle = package(exported.path, folder / "findings", [("1.jpeg", photographs[0])], about, archive=False)
    (folder / "token").write_text(TOKEN)
    with serving(bundle, "--workers", "1", "--token-file", folder / "token") as service:
        yield service.url


@pytest.fixture
def visit(browser):
    """Open a service's page; afterwards nothing may have left it, nor anything have been complained of."""
    contexts, asked, complaints = [], [], []

    def open_page(address: str, **context) -> Page:
        given = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **context}
        contexts.append(browser.new_context(**given))
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append((request.method, request.url)))
        page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("filechooser", lambda _: None)  # from now on; asked for at the click it can come too late
        page.goto(address)
        page.asked = asked
        expect(page.locator("#classes li")).not_to_have_count(0)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # A browser's own line for every answer that is no success; what the page makes of those is tested.
    assert [line for line in complaints if not line.startswith("Failed to load resource")] == []
    hosts = {urlsplit(url).hostname for _, url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}


@pytest.fixture
def page(visit, grades):
    return visit(grades)


def choose(page: Page, name: str, data: bytes) -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": data})


def sent(page: Page) -> int:
    return sum(url.endswith("/explain") for _, url in page.asked)


def refer(page: Page, **more) -> None:
    """Let the service's next answers be left to a person, as those of a bundle with a referral rule."""
    page.route("**/explain", lambda route: route.fulfill(json={**route.fetch().json(), **more}))


BETWEEN = {
    "set": ["Moderate", "Severe"],
    "refer": True,
    "why": "several",
    "advice": "Between Moderate and Severe; please refer.",
    "words": "The probabilities are calibrated on 300 patients of the validation split.",
}


def test_a_photograph_is_answered_with_all_there_is_to_know(page, bundle, photographs, screenshots):
    expected = bundle.predictor().predict(photographs[2:3])
    page.screenshot(path=screenshots / "page_empty.png")
    choose(page, "eye.jpeg", photographs[2])
    expect(page.locator("#decision")).to_have_text(RETINOPATHY.classes[expected.decided[0]])
    told = f"Grade {expected.decided[0]}, {expected.grade[0]:.2f} on the scale"
    expect(page.locator("#kicker")).to_contain_text(told)
    expect(page.locator("#words")).to_contain_text("not calibrated")
    expect(page.locator("#advice")).to_be_hidden()
    rows = page.locator("#bars th").all_inner_texts()
    assert [row[0] for row in rows] == list("01234"), "grades keep their order"
    shown = [float(text.strip("<> ")) for text in page.locator("#bars .number").all_inner_texts()]
    assert shown == pytest.approx(expected.probabilities[0].tolist(), abs=2e-3)
    expect(page.locator("#heat")).to_contain_text("not a segmentation")
    expect(page.locator("#picture-caption")).to_have_text("eye.jpeg, cropped and scaled to 96 by 96 pixels.")
    expect(page.locator("footer")).to_contain_text(bundle.manifest.version)
    page.screenshot(path=screenshots / "page_light.png", full_page=True)


def test_an_answer_that_is_left_to_a_person_says_so_first(page, photographs, screenshots):
    refer(page, **BETWEEN)
    choose(page, "eye.jpeg", photographs[2])
    expect(page.locator("#advice")).to_have_text("Between Moderate and Severe; please refer.")
    expect(page.locator("#words")).to_contain_text("calibrated on 300 patients")
    assert page.locator("#bars tr.possible th").all_inner_texts()[1].startswith("3\u00a0Severe")
    page.screenshot(path=screenshots / "page_refer.png", full_page=True)


def test_what_is_dropped_and_pasted_is_answered_and_replaces_what_was_there(page, photographs):
    carry = """([event, name, data]) => {
      const carried = new DataTransfer();
      carried.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
      const one = event === "paste"
        ? new ClipboardEvent(event, { clipboardData: carried, cancelable: true, bubbles: true })
        : new DragEvent(event, { dataTransfer: carried, cancelable: true, bubbles: true });
      document.querySelector("footer").dispatchEvent(one);
    }"""
    for event, name, number in (("drop", "dropped.jpeg", 0), ("paste", "pasted.jpeg", 4)):
        page.evaluate(carry, [event, name, base64.b64encode(photographs[number]).decode()])
        expect(page.locator("#picture-caption")).to_contain_text(name)
    assert sent(page) == 2


def test_an_answer_that_comes_late_is_not_shown_for_another_file(page, photographs):
    held = []
    page.route("**/explain", lambda route: held.append(route) if not held else route.continue_())
    choose(page, "first.jpeg", photographs[0])
    expect(page.locator("#waiting")).to_have_text("first.jpeg is with the service")
    deadline = time.monotonic() + 60
    while not held:  # or the second could be held in its place
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)
    choose(page, "second.jpeg", photographs[4])
    expect(page.locator("#picture-caption")).to_contain_text("second.jpeg")
    held[0].fulfill(json={"class": "Wrong", "grade": 0, "probabilities": {}})
    page.wait_for_timeout(200)
    expect(page.locator("#picture-caption")).to_contain_text("second.jpeg")


def test_the_slider_lays_the_heatmap_over_the_picture(page, photographs):
    def drawn(opacity: int) -> np.ndarray:
        page.get_by_label("Heatmap opacity").fill(str(opacity))
        url = page.evaluate("document.getElementById('canvas').toDataURL('image/png')")
        return cv2.imdecode(np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8), 1).astype(int)

    grey = cv2.imencode(".png", np.full((96, 96, 3), 90, np.uint8))[1].tobytes()
    rows = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    picture = "data:image/png;base64," + base64.b64encode(grey).decode()
    refer(page, picture=picture, heatmap={"of": "a higher grade", "rows": rows})
    choose(page, "eye.jpeg", photographs[0])
    expect(page.locator("#heat")).to_be_visible()
    none, half, full = drawn(0), drawn(50), drawn(100)
    side = len(full)
    assert np.abs(none - 90).max() <= 1
    assert np.abs(full[3 * side // 8, 7 * side // 8] - (37, 231, 253)).max() <= 40, "the strongest place is yellow"
    assert np.abs(full[:, : side // 2] - 90).max() <= 1, "where there is no evidence, the picture stays as it is"
    assert np.abs(half - none).mean() == pytest.approx(np.abs(full - none).mean() / 2, rel=0.1)


@pytest.mark.parametrize(
    ("answer", "title", "words", "again"),
    [
        (None, "This file was refused", "give a JPEG, PNG, TIFF, BMP or DICOM file", False),
        ({"status": 503, "json": {"error": "the service is busy"}}, "The service is busy", "service is busy.", True),
        ({"status": 500, "body": "x"}, "The service failed", "The service answered 500.", True),
        ("abort", "The service does not answer", "the network is down", True),
    ],
)
def test_what_goes_wrong_is_said_and_can_be_tried_again(page, photographs, answer, title, words, again):
    if answer == "abort":
        page.route("**/explain", lambda route: route.abort())
    elif answer:
        page.route("**/explain", lambda route: route.fulfill(**answer))
    choose(page, "<img src=x onerror=alert(1)>.jpeg", photographs[0] if answer else b"dear diary")
    told = page.get_by_role("alert")
    for text in (title, words, "<img src=x onerror=alert(1)>.jpeg"):
        expect(told).to_contain_text(text)
    expect(page.locator("#decision")).to_be_hidden()
    button = page.get_by_role("button", name="Try again")
    expect(button).to_be_visible() if again else expect(button).to_be_hidden()
    page.unroute("**/explain")
    button.click() if again else choose(page, "eye.jpeg", photographs[0])
    expect(page.locator("#decision")).to_be_visible()


def test_the_model_card_opens_and_brings_no_markup_of_its_own(page, bundle):
    page.get_by_text("Model card").click()
    card = page.locator("#card-content")
    expect(card.get_by_role("heading", name="Intended use")).to_be_visible()
    expect(card.get_by_role("table").first).to_contain_text("accuracy")
    assert card.locator("script, style, iframe, img").count() == 0


def test_all_of_it_works_with_keys_alone(page, photographs):
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Choose an image")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files({"name": "eye.jpeg", "mimeType": "image/jpeg", "buffer": photographs[0]})
    expect(page.locator("#decision")).to_be_visible()
    expect(page.get_by_role("button", name="Choose another image")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("slider", name="Heatmap opacity")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("slider")).to_have_value("65")
    expect(page.get_by_role("img")).to_have_accessible_name(
        re.compile("The image eye.jpeg as the model saw it, with a")
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_schemes(visit, grades, findings, photographs, scheme, screenshots):
    page = visit(grades, color_scheme=scheme)
    contrasts = page.evaluate(CONTRAST)
    refer(page, **BETWEEN)
    choose(page, "eye.jpeg", photographs[0])
    expect(page.locator("#decision")).to_be_visible()
    page.get_by_text("Model card").click()
    expect(page.get_by_role("heading", name="Intended use")).to_be_visible()
    contrasts += page.evaluate(CONTRAST)
    page.screenshot(path=screenshots / f"page_{scheme}_with_card.png", full_page=True)
    choose(page, "note.jpeg", b"text")
    expect(page.get_by_role("alert")).to_be_visible()
    contrasts += page.evaluate(CONTRAST)
    contrasts += visit(findings, color_scheme=scheme).evaluate(CONTRAST)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (np.mean([int(part) for part in re.findall(r"\d+", ground)]) < 128) == (scheme == "dark")
    assert len(contrasts) > 60
    assert [(round(ratio, 2), text) for ratio, text in contrasts if ratio < 4.5] == []


def test_it_fits_a_telephone_and_keeps_the_notice_in_sight(visit, grades, photographs, screenshots):
    page = visit(grades, **PHONE)
    refer(page, **BETWEEN)
    choose(page, f"{'long' * 40}.jpeg", photographs[0])
    expect(page.locator("#decision")).to_be_visible()
    page.screenshot(path=screenshots / "page_telephone.png", full_page=True)
    page.get_by_text("Model card").click()
    expect(page.get_by_role("heading", name="Intended use")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.get_by_text("Not a medical device. Synthetic.")).to_be_in_viewport()
    assert page.locator("#bars .number").first.evaluate("(one) => one.getClientRects().length") == 1


def test_a_token_is_asked_for_until_it_is_right_and_then_kept_in_memory(visit, findings, photographs, screenshots):
    page = visit(findings)
    field = page.get_by_label("Token")
    expect(field).to_have_attribute("type", "password")
    choose(page, "chest.jpeg", photographs[0])
    expect(page.locator("#token-words")).to_contain_text("chest.jpeg is sent as soon as it is there.")
    assert sent(page) == 0
    field.fill("a-wrong-one-of-thirty-characters")
    page.keyboard.press("Enter")
    expect(page.locator("#token-words")).to_contain_text("This service asks for a token; send it")
    field.fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#kicker")).to_contain_text("of 14 classes")
    kept = page.evaluate("[document.cookie, localStorage.length, sessionStorage.length, location.href]")
    assert kept == ["", 0, 0, f"{findings}/"]
    page.screenshot(path=screenshots / "page_findings.png", full_page=True)
    shown = [float(text) for text in page.locator("#bars .number").all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    limits = dict(zip(CHEST_XRAY.classes, (0.3,) * 7 + (0.9,) * 7, strict=True))
    for row, chance in zip(page.locator("#bars tr").all(), shown, strict=True):
        limit = limits[row.get_by_role("rowheader").inner_text().split("(")[0].strip().replace(" ", "_")]
        expect(row.locator(".limit")).to_have_text(f"{limit:.3f}")
        assert ("decided" in row.get_attribute("class")) == (chance >= limit)


def test_a_file_that_is_too_large_is_refused_unsent(page):
    def claim_less(route):
        if "json" not in route.request.headers["accept"]:
            return route.continue_()
        return route.fulfill(json={**route.fetch().json(), "limits": {"bytes": 1 << 20}})

    page.route(page.url, claim_less)
    page.reload()
    expect(page.locator("#limit")).to_have_text(", up to 1 MiB")
    choose(page, "huge.tiff", bytes(3 << 19))
    expect(page.get_by_role("alert")).to_contain_text("It has 1.5 MiB; the service takes up to 1 MiB. It was not sent.")
    assert sent(page) == 0
