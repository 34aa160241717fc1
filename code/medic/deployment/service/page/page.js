// The page of one service: an image goes to /explain, the answer is shown. Nothing is asked of any other host, and all
// that comes from the service is set as text, never as markup. Styles are set through the CSSOM, which the page's
// Content-Security-Policy allows where it forbids style attributes.

const part = (id) => document.getElementById(id);

let about = null; // what the service says of itself: task, limits, notice
let token = ""; // in memory alone
let job = null; // the image at hand; whatever comes for an earlier one is dropped
let shown = null; // picture and heatmap on the canvas
let retry = null; // what "Try again" does
let ticking = 0; // the timer that counts down until trying again is welcome

// --- what the service is asked -----------------------------------------------------------------------------------

/** Something that went wrong, as a person is told: `state` is refused, busy, gone or token. */
class Problem extends Error {
  constructor(state, title, words, wait = 0) {
    super(words);
    Object.assign(this, { state, title, wait });
  }
}

const SLOW = 8000; // milliseconds after which it is said that an answer takes long
const GONE = "Nothing came back. It may have stopped, or the network is down.";

/** The service's answer as `read` takes it out of the response (json, text); a Problem if there is none. */
async function ask(path, read, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    const response = await fetch(path, { ...options, headers, cache: "no-store" });
    if (response.ok) return await read(response);
    throw await problemOf(response);
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem("gone", "The service does not answer", GONE);
  }
}

async function problemOf(response) {
  const said = await response.json().catch(() => ({}));
  const words = sentence(typeof said.error === "string" ? said.error : `the service answered ${response.status}`);
  if (response.status === 401) return new Problem("token", "", words);
  if (response.status === 429 || response.status === 503) {
    return new Problem("busy", "The service is busy", words, seconds(response.headers.get("Retry-After")));
  }
  if (response.status === 413) return new Problem("refused", "This file is too large", words);
  if (response.status === 408) return new Problem("busy", "The image did not arrive in time", words);
  if (response.status >= 500) return new Problem("gone", "The service failed", words);
  return new Problem("refused", "This file was refused", words);
}

/** Retry-After is a number of seconds or a date. */
function seconds(after) {
  if (!after) return 1;
  const wait = /^\d+$/.test(after) ? Number(after) : (Date.parse(after) - Date.now()) / 1000;
  return Math.min(Math.max(Math.ceil(wait) || 1, 1), 600);
}

// --- words and numbers -------------------------------------------------------------------------------------------

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const plain = (name) => capital(name.replaceAll("_", " "));
const sentence = (text) => capital(text.trim()) + (/[.?]$/.test(text.trim()) ? "" : ".");
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 && bytes % 2 ** 20 ? 2 : 0)} MiB`;

/** Three decimals, but no certainty that rounding made. */
function number(value) {
  if (value > 0 && value < 0.001) return "< 0.001";
  if (value < 1 && value > 0.999) return "> 0.999";
  return value.toFixed(3);
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// --- states ------------------------------------------------------------------------------------------------------

/** Show what belongs to a state: empty, reading, waiting, answered, refused, busy, gone or token. */
function show(state) {
  clearInterval(ticking);
  part("main").dataset.state = state;
  part("main").classList.toggle("viewing", ["reading", "waiting", "answered"].includes(state));
  for (const element of document.querySelectorAll("[data-in]")) {
    element.hidden = !element.dataset.in.split(" ").includes(state);
  }
  // The keyboard's focus is not lost with what had it.
  if (document.activeElement?.closest("[hidden]")) part("choose").focus({ preventScroll: true });
  part("choose-title").textContent = job ? "Choose another image" : "Choose an image";
}

const say = (text) => (part("status").textContent = text);

function showPending(state, text) {
  show(state);
  part("pending").textContent = text;
  say(text);
}

function showProblem(problem, file, again) {
  if (problem.state === "token") return askForToken(problem.message);
  show(problem.state);
  part("problem-title").textContent = problem.title;
  part("problem-words").textContent = problem.message;
  part("problem-file").textContent = file ? file.name : "";
  part("problem-file").hidden = !file;
  part("again").hidden = problem.state === "refused";
  retry = again;
  say("");
  countDown(problem.wait);
  part("problem").scrollIntoView({ block: "nearest" });
}

/** The service said how long to wait; the button counts, stays where the focus may be, and does nothing until then. */
function countDown(wait) {
  const button = part("again");
  const tick = () => {
    button.setAttribute("aria-disabled", String(wait > 0));
    button.textContent = wait > 0 ? `Try again in ${wait} s` : "Try again";
    if (wait <= 0) clearInterval(ticking);
    wait -= 1;
  };
  tick();
  if (wait >= 0) ticking = setInterval(tick, 1000);
}

function askForToken(words = "") {
  show("token");
  const waiting = job ? ` ${job.file.name} is sent as soon as it is there.` : "";
  part("token-words").textContent = `${words || "Whoever runs the service has given you one."}${waiting}`;
  part("token").value = "";
  part("token").focus();
  say("");
}

// --- one image ---------------------------------------------------------------------------------------------------

/** Send a file and show the answer, unless another file comes first. `count` files were given with it. */
async function take(file, count = 1) {
  job?.stop.abort();
  const mine = (job = { file, count, stop: new AbortController() });
  let slow = 0;
  try {
    await introduced();
    if (mine !== job) return;
    if (about.token && !token) return askForToken();
    refuseTooLarge(file);
    showPending("reading", `Reading ${file.name}`);
    const body = await file.arrayBuffer().catch(() => {
      throw new Problem("refused", "This file cannot be read", "It was moved or changed meanwhile, or is a folder.");
    });
    if (mine !== job) return;
    showPending("waiting", `${file.name} is with the service`);
    slow = setTimeout(() => showPending("waiting", `${file.name} is with the service; it takes its time`), SLOW);
    const headers = { "Content-Type": typeOf(file) };
    const answer = await ask("explain", (response) => response.json(), {
      method: "POST",
      body,
      headers,
      signal: mine.stop.signal,
    });
    const picture = new Image();
    picture.src = answer.picture;
    await picture.decode().catch(() => {
      throw new Problem("gone", "The service failed", "Its answer holds no picture that can be shown.");
    });
    // Another bundle may have taken over since the page was opened, with other thresholds and another card.
    if (answer.model !== about.model) {
      introducing = card = null;
      part("card").open = false;
      await introduced();
    }
    if (mine === job) showAnswer(file, answer, picture);
  } catch (error) {
    if (mine !== job) return;
    if (!(error instanceof Problem)) reportError(error);
    const failed = new Problem("gone", "The service failed", "Its answer cannot be shown on this page.");
    showProblem(error instanceof Problem ? error : failed, file, () => take(file, count));
  } finally {
    clearTimeout(slow);
  }
}

function refuseTooLarge(file) {
  const limit = about.limits.bytes;
  if (file.size <= limit) return;
  const words = `It has ${mebibytes(file.size)}; the service takes up to ${mebibytes(limit)}. It was not sent.`;
  throw new Problem("refused", "This file is too large", words);
}

/** A browser knows a type by the file's name alone; the service looks at the bytes. */
function typeOf(file) {
  if (file.type.startsWith("image/") || file.type === "application/dicom") return file.type;
  return /\.(dcm|dicom)$/i.test(file.name) ? "application/dicom" : "application/octet-stream";
}

function showAnswer(file, answer, picture) {
  show("answered");
  showDecision(answer);
  part("words").textContent = answer.words ?? "";
  showBars(answer);
  showPicture(file, answer, picture);
  say(`Answer for ${file.name}: ${part("kicker").textContent}, ${part("decision").textContent}. ${answer.words ?? ""}`);
}

// --- the decision and its bars -----------------------------------------------------------------------------------

function showDecision(answer) {
  const { kind, classes } = about.task;
  const names = decidedNames(answer).map(plain);
  part("decision").textContent = names.join(", ") || "Nothing reaches its threshold";
  part("decision").classList.toggle("many", kind === "multilabel" && (names.length > 2 || !names.length));
  const kickers = {
    ordinal: `Grade ${answer.grade}`,
    multiclass: answer.threshold === undefined ? `Most probable of ${classes.length} classes` : "Decided by the threshold",
    multilabel: `${names.length} of ${classes.length} classes`,
  };
  part("kicker").textContent = kickers[kind];
  const more = names.length > 3 ? ` and ${names.length - 2} more` : "";
  const short = more ? names.slice(0, 2).join(", ") + more : part("decision").textContent;
  part("verdict").textContent = kind === "ordinal" ? `${kickers.ordinal}: ${short}` : short;
  part("scale").hidden = kind !== "ordinal";
  if (kind !== "ordinal") return;
  const top = classes.length - 1;
  part("scale").querySelectorAll(".tick").forEach((tick) => tick.remove());
  for (const code of classes.keys()) {
    const tick = make("span", { class: "tick" }, String(code));
    tick.style.left = `${(100 * code) / top}%`;
    part("scale").append(tick);
  }
  part("place").style.left = `${(100 * Math.min(Math.max(answer.grade_continuous, 0), top)) / top}%`;
}

/** What is decided, the most probable first. */
function decidedNames(answer) {
  if (about.task.kind !== "multilabel") return [answer.class];
  return answer.classes.toSorted((a, b) => answer.probabilities[b] - answer.probabilities[a]);
}

/** The threshold of each class by name; empty where the most probable class is decided. */
function thresholdsOf(answer) {
  const { kind, classes } = about.task;
  if (kind === "multilabel") return answer.thresholds ?? Object.fromEntries(classes.map((name) => [name, 0.5]));
  return answer.threshold === undefined ? {} : { [classes[1]]: answer.threshold };
}

function showBars(answer) {
  const { kind, classes } = about.task;
  const thresholds = thresholdsOf(answer);
  const limited = Object.keys(thresholds).length > 0;
  const chance = (name) => answer.probabilities[name];
  // Grades keep their order, and two classes their places, so that two images can be compared.
  const names = kind === "ordinal" || classes.length === 2 ? classes : classes.toSorted((a, b) => chance(b) - chance(a));
  const decided = new Set(decidedNames(answer));
  const head = ["Class", "Probability", ...(limited ? ["Threshold"] : [])];
  // Roles are said outright: on a telephone the rows are laid out anew, and some browsers then forget the table.
  part("bars-head").replaceChildren(
    make("tr", { role: "row" }, ...head.map((text) => make("th", { scope: "col", role: "columnheader" }, text))),
  );
  part("table").classList.toggle("limited", limited);
  part("bars").replaceChildren(
    ...names.map((name) => {
      const bar = make("span", { class: "bar" });
      bar.style.width = `${100 * chance(name)}%`;
      const track = make("span", { class: "track", "aria-hidden": "true" }, bar);
      if (name in thresholds) {
        const mark = make("span", { class: "mark-threshold" });
        mark.style.left = `${100 * thresholds[name]}%`;
        track.append(mark);
      }
      const code = kind === "ordinal" ? [make("span", { class: "code" }, `${classes.indexOf(name)}\u00a0`)] : [];
      const chosen = decided.has(name) ? [make("span", { class: "unseen" }, " (decided)")] : [];
      const row = make(
        "tr",
        { role: "row", class: decided.has(name) ? "decided" : "" },
        make("th", { scope: "row", role: "rowheader" }, ...code, plain(name), ...chosen),
        make(
          "td",
          { role: "cell" },
          make("span", { class: "measure" }, track, make("span", { class: "number" }, number(chance(name)))),
        ),
      );
      const limit = name in thresholds ? number(thresholds[name]) : "";
      if (limited) row.append(make("td", { class: "limit", role: "cell" }, limit));
      return row;
    }),
  );
}

// --- the picture and its heatmap ---------------------------------------------------------------------------------

// Viridis (van der Walt and Smith, 2015): it grows lighter from end to end, so that it reads without red and green and
// in grey, and its blue, green and yellow stand apart from an orange fundus as from a grey radiograph.
const COLOURS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];
const SIDE = 720; // pixels of the canvas, or more where the picture has more
const HEAT_SIDE = 240; // pixels that the coarse grid is interpolated to, before the browser scales them

/** Colour and opacity, 0..255 each, of a value 0..1. Where little evidence is, the picture stays as it is. */
function colour(value) {
  const at = value * (COLOURS.length - 1);
  const low = Math.min(Math.floor(at), COLOURS.length - 2);
  const mixed = COLOURS[low].map((one, index) => one + (COLOURS[low + 1][index] - one) * (at - low));
  return [...mixed, 255 * Math.min(1, Math.max(0, (value - 0.08) / 0.42))];
}

/** Weights of the four cells around a place between the two in the middle (Catmull and Rom, 1974): smooth, and exact
    at each cell's centre. */
function weights(t) {
  return [
    ((2 - t) * t - 1) * t / 2, ((3 * t - 5) * t * t + 2) / 2, ((4 - 3 * t) * t + 1) * t / 2, (t - 1) * t * t / 2,
  ];
}

/** The grid's values, 0..1, at `side` x `side` places; a cell's value belongs to its centre. */
function interpolated(rows, side) {
  const places = (count) =>
    Array.from({ length: side }, (_, index) => {
      const at = ((index + 0.5) * count) / side - 0.5;
      const cells = [-1, 0, 1, 2].map((step) => Math.min(Math.max(Math.floor(at) + step, 0), count - 1));
      return [cells, weights(at - Math.floor(at))];
    });
  const across = places(rows[0].length);
  const wide = rows.map((row) => across.map(([cells, by]) => cells.reduce((sum, cell, k) => sum + by[k] * row[cell], 0)));
  return places(rows.length).flatMap(([cells, by]) =>
    across.map((_, x) => Math.min(1, Math.max(0, cells.reduce((sum, cell, k) => sum + by[k] * wide[cell][x], 0)))),
  );
}

function heatPicture(rows) {
  const canvas = make("canvas", { width: HEAT_SIDE, height: HEAT_SIDE });
  const pixels = new ImageData(HEAT_SIDE, HEAT_SIDE);
  interpolated(rows, HEAT_SIDE).forEach((value, index) => pixels.data.set(colour(value), 4 * index));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

/** Where the largest value lies, in words. */
function strongest(rows) {
  const top = Math.max(...rows.flat());
  const y = rows.findIndex((row) => row.includes(top));
  const x = rows[y].indexOf(top);
  const third = (at, count) => Math.min(2, Math.floor((3 * (at + 0.5)) / count));
  return [
    ["in the upper left", "at the top", "in the upper right"],
    ["on the left", "in the middle", "on the right"],
    ["in the lower left", "at the bottom", "in the lower right"],
  ][third(y, rows.length)][third(x, rows[0].length)];
}

function showPicture(file, answer, picture) {
  const heat = answer.heatmap;
  const evident = heat !== null && heat !== undefined && Math.max(...heat.rows.flat()) > 0;
  const { naturalWidth: width, naturalHeight: height } = picture;
  const scale = Math.max(1, SIDE / Math.max(width, height));
  Object.assign(part("canvas"), { width: Math.round(width * scale), height: Math.round(height * scale) });
  shown = { name: file.name, picture, heat: evident ? heatPicture(heat.rows) : null };
  part("heat").hidden = !evident;
  part("no-heat").hidden = evident;
  if (evident) {
    // It may also argue for "a higher grade", which is no class.
    const of = about.task.classes.includes(heat.of) ? plain(heat.of) : heat.of;
    Object.assign(shown, { of, strongest: strongest(heat.rows) });
    part("heat-of").textContent = shown.of;
    const below = about.task.kind === "multilabel" && !answer.classes.includes(heat.of);
    part("heat-beside").textContent = below ? ", which stays below its threshold, " : " ";
  } else part("no-heat").textContent = withoutHeat(heat);
  const first = job.count > 1 ? ` (the first of ${job.count} files)` : "";
  part("picture-caption").textContent =
    `${file.name}${first}, cropped and scaled to ${width} by ${height} pixels, as the model saw it.`;
  draw();
}

function withoutHeat(heat) {
  if (heat) return `No heatmap: no place in this image speaks for ${plain(heat.of)}.`;
  if (about.heatmap) return "No heatmap: there is no class to show the evidence for.";
  return (
    "No heatmap: this model's network does not end in an average over places and one linear layer, so that its answer " +
    "cannot be traced to places."
  );
}

function draw() {
  if (!shown) return;
  const canvas = part("canvas");
  const opacity = Number(part("opacity").value);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.globalAlpha = 1;
  context.drawImage(shown.picture, 0, 0, canvas.width, canvas.height);
  part("opacity-shown").textContent = `${opacity} %`;
  part("opacity").setAttribute("aria-valuetext", opacity ? `${opacity} per cent` : "hidden");
  let words = `The image ${shown.name} as the model saw it`;
  if (shown.heat) {
    context.globalAlpha = opacity / 100;
    context.drawImage(shown.heat, 0, 0, canvas.width, canvas.height);
    words += opacity ? `, with a heatmap over it: the evidence for ${shown.of} is` : `; the evidence for ${shown.of} is`;
    words += ` strongest ${shown.strongest}${opacity ? "" : ", the heatmap is hidden"}`;
  }
  canvas.setAttribute("aria-label", words);
}

function drawLegend() {
  const canvas = part("legend");
  const pixels = new ImageData(canvas.width, 1);
  for (let x = 0; x < canvas.width; x += 1) pixels.data.set(colour(x / (canvas.width - 1)), 4 * x);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// --- the model card ----------------------------------------------------------------------------------------------

const KEPT = new Set("P UL OL LI TABLE THEAD TBODY TR TH TD STRONG EM CODE PRE HR BLOCKQUOTE BR".split(" "));

/** Copies of the nodes of a parsed fragment, of the kinds of element above and without their attributes. */
function copied(nodes) {
  return [...nodes].flatMap((node) => {
    if (node.nodeType === Node.TEXT_NODE) return [node.data];
    if (node.nodeType !== Node.ELEMENT_NODE || /^(SCRIPT|STYLE|TEMPLATE)$/.test(node.tagName)) return [];
    const heading = /^H([1-6])$/.exec(node.tagName);
    // The page's own headings stand above those of the card.
    if (heading) return [make(`h${Math.min(6, Number(heading[1]) + 2)}`, {}, ...copied(node.childNodes))];
    const children = copied(node.childNodes);
    if (node.tagName === "TABLE" || node.tagName === "PRE") {
      // What may be wider than the page scrolls by itself, with keys as well.
      const label = node.tagName === "TABLE" ? "Table" : "Commands";
      const wide = { class: "wide", tabindex: "0", role: "region", "aria-label": label };
      return [make("div", wide, make(node.tagName, {}, ...children))];
    }
    return KEPT.has(node.tagName) ? [make(node.tagName, {}, ...children)] : children;
  });
}

let card = null;

/** Fetch the model card once and show it; a Problem if it cannot be had. */
async function loadCard() {
  card ??= ask("card", (response) => response.text(), { headers: { Accept: "text/html" } });
  try {
    const parsed = new DOMParser().parseFromString(await card, "text/html");
    part("card-content").replaceChildren(...copied(parsed.body.childNodes));
  } catch (problem) {
    card = null;
    const words = problem.state === "token" ? "The card is shown once the token is given." : problem.message;
    part("card-content").replaceChildren(make("p", { class: "soft" }, words));
    throw problem;
  }
}

// --- the service in words ----------------------------------------------------------------------------------------

let introducing = null;

/** Wait until the service has said what it is; a Problem if it does not. */
function introduced() {
  introducing ??= introduce().catch((problem) => {
    introducing = null;
    throw problem;
  });
  return introducing;
}

async function introduce() {
  about = await ask(".", (response) => response.json());
  const { name, kind, classes } = about.task;
  const title = plain(name).replace(/xray/i, "X-ray");
  document.title = `${title} · MEDIC`;
  part("title").textContent = title;
  const answers = {
    ordinal: `One image in, one of ${classes.length} grades out, from ${plain(classes[0])} to ${plain(classes.at(-1))}.`,
    multiclass:
      classes.length === 2
        ? `One image in, one answer out: ${classes.map(plain).join(" or ")}.`
        : `One image in, one of ${classes.length} classes out.`,
    multilabel: `One image in; each of ${classes.length} classes is judged on its own.`,
  };
  part("question").textContent = answers[kind];
  part("classes").replaceChildren(
    ...classes.map((one, code) => make("li", {}, kind === "ordinal" ? `${code} ${plain(one)}` : plain(one))),
  );
  part("limit").textContent = `, up to ${mebibytes(about.limits.bytes)}`;
  // The first sentence stays in sight on a telephone, the rest stands below it.
  const [first, ...rest] = about.notice.split(/(?<=\.)\s+/);
  part("notice-first").textContent = about.synthetic ? `${first} Synthetic.` : first;
  part("notice-rest").textContent = rest.join(" ");
  const facts = [["Model", about.model], ["Precision", about.precision], ["Deployment", about.deployment]];
  part("facts").replaceChildren(
    ...facts.filter(([, value]) => value).map(([what, value]) => make("div", {}, make("dt", {}, what), make("dd", {}, value))),
  );
}

async function start() {
  show("empty");
  try {
    await introduced();
    if (!job && about.token && !token) askForToken();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (!job) showProblem(problem, null, start);
  }
}

// --- what a person does ------------------------------------------------------------------------------------------

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const highlight = (on) => document.body.classList.toggle("dropping", on);

part("choose").addEventListener("click", () => part("file").click());
part("file").addEventListener("change", () => {
  const files = [...part("file").files];
  part("file").value = ""; // or the same file could not be chosen twice
  if (files.length) take(files[0]);
});

// The whole page takes a drop: beside the zone a browser would leave the page and open the file.
document.addEventListener("dragover", (event) => {
  if (event.target === part("token")) return;
  event.preventDefault();
  highlight(carriesFiles(event));
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) highlight(false);
});
document.addEventListener("drop", (event) => {
  if (event.target === part("token")) return;
  event.preventDefault();
  highlight(false);
  const files = event.dataTransfer?.files ?? [];
  if (files.length) return take(files[0], files.length);
  job?.stop.abort();
  job = null;
  showProblem(new Problem("refused", "That was no file", "Save the image as a file first, then choose or drop it."));
});
document.addEventListener("paste", (event) => {
  const files = event.clipboardData?.files ?? [];
  if (!files.length) return;
  event.preventDefault();
  take(files[0], files.length);
});

part("cancel").addEventListener("click", () => {
  job?.stop.abort();
  job = null;
  show("empty");
  say("Cancelled");
});
part("again").addEventListener("click", () => {
  if (part("again").getAttribute("aria-disabled") === "true") return;
  retry();
});
part("opacity").addEventListener("input", draw);
part("card").addEventListener("toggle", () => {
  if (part("card").open) loadCard().catch(() => {});
});

part("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = part("token").value.trim();
  if (!/^[!-~]+$/.test(token)) {
    token = "";
    return askForToken("A token has letters, digits and signs, and no blanks.");
  }
  try {
    // The card asks for the token as well, so that a wrong one shows before an image is sent.
    await loadCard();
    await introduced();
    if (job) take(job.file, job.count);
    else show("empty");
  } catch (problem) {
    if (problem.state === "token") token = "";
    showProblem(problem, null, () => askForToken());
  }
});

drawLegend();
start();
