// The page of one service: an image goes to /explain, the answer is shown. Nothing is asked of any other host, and what
// comes from the service is set as text, never as markup; the card's markup is the service's own.

const part = (id) => document.getElementById(id);

let about = null; // what the service says of itself: task, limits, notice
let token = ""; // in memory alone
let job = null; // the image at hand; whatever comes for an earlier one is dropped
let shown = null; // picture and heatmap on the canvas
let retry = null; // what "Try again" does

// --- what the service is asked -----------------------------------------------------------------------------------

/** Something that went wrong, as a person is told. */
class Problem extends Error {
  constructor(title, words, status = 0) {
    super(words);
    Object.assign(this, { title, status });
  }
}

const TITLES = { 413: "This file is too large", 503: "The service is busy", 500: "The service failed" };

/** The service's answer as `read` takes it out of the response ("json", "text"); a Problem if there is none. */
async function ask(path, read, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
    if (response.ok) return await response[read]();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer", "It may have stopped, or the network is down.");
  }
  const said = await response.json().catch(() => ({}));
  const words = sentence(said.error ?? `the service answered ${response.status}`);
  throw new Problem(TITLES[response.status] ?? "This file was refused", words, response.status);
}

// --- words and numbers -------------------------------------------------------------------------------------------

const plain = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.?]$/.test(text) ? "" : ".");
const mebibytes = (bytes) => `${+(bytes / 2 ** 20).toFixed(2)} MiB`;

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

/** Show what belongs to a state: empty, waiting, answered, problem or token. */
function show(state) {
  part("main").dataset.state = state;
  for (const element of document.querySelectorAll("[data-in]")) element.hidden = element.dataset.in !== state;
  // The keyboard's focus is not lost with what had it.
  if (document.activeElement?.closest("[hidden]")) part("choose").focus({ preventScroll: true });
  part("choose-title").textContent = job ? "Choose another image" : "Choose an image";
}

function showProblem(problem, again = null) {
  if (problem.status === 401) {
    token = "";
    return askForToken(problem.message);
  }
  show("problem");
  part("problem-title").textContent = problem.title ?? "This page failed";
  part("problem-words").textContent = `${problem.message}${job ? ` (${job.file.name})` : ""}`;
  const mayPass = !problem.status || problem.status >= 500;
  part("again").hidden = !again || !mayPass;
  retry = again;
}

function askForToken(words = "This service asks for a token.") {
  show("token");
  part("token-words").textContent = words + (job ? ` ${job.file.name} is sent as soon as it is there.` : "");
  part("token").value = "";
  part("token").focus();
}

// --- one image ---------------------------------------------------------------------------------------------------

/** Send a file and show the answer, unless another file comes first. */
async function take(file) {
  job?.stop.abort();
  const mine = (job = { file, stop: new AbortController() });
  try {
    about ?? (await introduce());
    if (mine !== job) return;
    if (about.token && !token) return askForToken();
    const limit = about.limits.bytes;
    if (file.size > limit) {
      const words = `It has ${mebibytes(file.size)}; the service takes up to ${mebibytes(limit)}. It was not sent.`;
      throw new Problem(TITLES[413], words, 413);
    }
    show("waiting");
    part("waiting").textContent = `${file.name} is with the service`;
    // The service looks at the bytes; a browser knows a type by the file's name alone.
    const headers = { "Content-Type": "application/octet-stream" };
    const answer = await ask("explain", "json", { method: "POST", body: file, headers, signal: mine.stop.signal });
    const picture = new Image();
    picture.src = answer.picture;
    await picture.decode();
    // Another bundle may have taken over since the page was opened, with other thresholds and another card.
    if (answer.model !== about.model) await introduce();
    if (mine === job) showAnswer(file, answer, picture);
  } catch (error) {
    if (mine === job) showProblem(error, () => take(file));
  }
}

function showAnswer(file, answer, picture) {
  const { kind, classes } = about.task;
  const chance = (name) => answer.probabilities[name];
  const decided = kind === "multilabel" ? answer.classes.toSorted((a, b) => chance(b) - chance(a)) : [answer.class];
  const kickers = {
    ordinal: `Grade ${answer.grade}, ${answer.grade_continuous?.toFixed(2)} on the scale from 0 to ${classes.length - 1}`,
    multiclass: answer.threshold === undefined ? `Most probable of ${classes.length} classes` : "Decided by the threshold",
    multilabel: `${decided.length} of ${classes.length} classes`,
  };
  show("answered");
  part("advice").textContent = answer.advice ?? "";
  part("advice").hidden = !answer.advice;
  part("advice").classList.toggle("refer", Boolean(answer.refer));
  part("kicker").textContent = kickers[kind];
  part("decision").textContent = decided.map(plain).join(", ") || "Nothing reaches its threshold";
  part("decision").classList.toggle("many", decided.length > 2);
  part("words").textContent = answer.words;
  showBars(answer, decided);
  const { naturalWidth: width, naturalHeight: height } = picture;
  const scale = Math.max(1, 720 / Math.max(width, height));
  Object.assign(part("canvas"), { width: width * scale, height: height * scale });
  const heat = answer.heatmap;
  // It may also argue for "a higher grade", which is no class.
  const of = heat && (classes.includes(heat.of) ? plain(heat.of) : heat.of);
  shown = { name: file.name, picture, of, heat: heat && heatPicture(heat.rows) };
  part("heat").hidden = !heat;
  part("heat-of").textContent = shown.of;
  const without = heat ? "" : " This model's network gives no heatmap.";
  part("picture-caption").textContent = `${file.name}, cropped and scaled to ${width} by ${height} pixels.${without}`;
  draw();
}

function showBars(answer, decided) {
  const { kind, classes } = about.task;
  const chance = (name) => answer.probabilities[name];
  const single = answer.threshold === undefined ? {} : { [classes[1]]: answer.threshold };
  const thresholds = answer.thresholds ?? single;
  // Grades keep their order, and two classes their places, so that two images can be compared.
  const names = kind === "ordinal" || classes.length === 2 ? classes : classes.toSorted((a, b) => chance(b) - chance(a));
  part("table").classList.toggle("limited", Object.keys(thresholds).length > 0);
  part("bars").replaceChildren(...names.map((name) => {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${100 * chance(name)}%`;
    const track = make("span", { class: "track", "aria-hidden": "true" }, bar);
    if (name in thresholds) {
      const mark = make("span", { class: "mark-threshold" });
      mark.style.left = `${100 * thresholds[name]}%`;
      track.append(mark);
    }
    const marks = [];
    if (decided.includes(name)) marks.push("decided");
    if (answer.set?.includes(name)) marks.push("possible");
    const told = marks.length ? [make("span", { class: "unseen" }, ` (${marks.join(", ")})`)] : [];
    const code = kind === "ordinal" ? `${classes.indexOf(name)}\u00a0` : "";
    return make("tr", { class: marks.join(" ") },
      make("th", { scope: "row" }, code + plain(name), ...told),
      make("td", {}, make("div", { class: "measure" }, track, make("span", { class: "number" }, number(chance(name))))),
      make("td", { class: "limit" }, name in thresholds ? number(thresholds[name]) : ""));
  }));
}

// --- the picture and its heatmap ---------------------------------------------------------------------------------

// Viridis (van der Walt and Smith, 2015): it grows lighter from end to end, so that it reads without red and green.
const COLOURS = [[68, 1, 84], [59, 81, 139], [33, 144, 141], [92, 200, 99], [253, 231, 37]];

/** Colour and opacity, 0..255 each, of a value 0..1. Where little evidence is, the picture stays as it is. */
function colour(value) {
  const at = value * (COLOURS.length - 1);
  const low = Math.min(Math.floor(at), COLOURS.length - 2);
  const mixed = COLOURS[low].map((one, index) => one + (COLOURS[low + 1][index] - one) * (at - low));
  return [...mixed, 255 * Math.min(1, Math.max(0, (value - 0.08) / 0.42))];
}

/** The coarse grid as a picture of a pixel a cell; the browser interpolates as it scales. */
function heatPicture(rows) {
  const canvas = make("canvas", { width: rows[0].length, height: rows.length });
  const pixels = new ImageData(canvas.width, canvas.height);
  rows.flat().forEach((value, index) => pixels.data.set(colour(value), 4 * index));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function draw() {
  if (!shown) return;
  const canvas = part("canvas");
  const opacity = Number(part("opacity").value);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.globalAlpha = 1;
  context.drawImage(shown.picture, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = opacity / 100;
  if (shown.heat) context.drawImage(shown.heat, 0, 0, canvas.width, canvas.height);
  const over = shown.heat && opacity ? `, with a heatmap of the evidence for ${shown.of} over it` : "";
  canvas.setAttribute("aria-label", `The image ${shown.name} as the model saw it${over}`);
}

// --- the service in words ----------------------------------------------------------------------------------------

const QUESTIONS = {
  ordinal: (classes) => `One image in, one of ${classes.length} grades out, from ${classes[0]} to ${classes.at(-1)}.`,
  multiclass: (classes) => `One image in, one of ${classes.length} classes out.`,
  multilabel: (classes) => `One image in; each of ${classes.length} classes is judged on its own.`,
};

async function introduce() {
  about = await ask(".", "json");
  const { name, kind, classes } = about.task;
  const title = plain(name).replace(/xray/i, "X-ray");
  document.title = `${title} · MEDIC`;
  part("title").textContent = title;
  part("question").textContent = QUESTIONS[kind](classes.map(plain));
  part("classes").replaceChildren(...classes.map((one) => make("li", {}, plain(one))));
  part("limit").textContent = `, up to ${mebibytes(about.limits.bytes)}`;
  // The first sentence stays in sight on a telephone.
  const [first, ...rest] = about.notice.split(/(?<=\.)\s+/);
  part("notice-first").textContent = about.synthetic ? `${first} Synthetic.` : first;
  part("notice-rest").textContent = rest.join(" ");
  const facts = [`Model ${about.model}`, about.precision, about.deployment && `deployment ${about.deployment}`];
  part("facts").textContent = facts.filter(Boolean).join(" · ");
  part("card").open = false;
}

async function start() {
  show("empty");
  try {
    await introduce();
    if (!job && about.token && !token) askForToken();
  } catch (problem) {
    if (!job) showProblem(problem, start);
  }
}

async function loadCard() {
  const text = await ask("card", "text", { headers: { Accept: "text/html" } });
  // The service renders the card, and leaves no HTML of the card's own in it.
  part("card-content").replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
}

// --- what a person does ------------------------------------------------------------------------------------------

part("choose").addEventListener("click", () => part("file").click());
part("file").addEventListener("change", () => {
  const [file] = part("file").files;
  if (file) take(file);
  part("file").value = ""; // or the same file could not be chosen twice
});

// The whole page takes a drop: beside the zone a browser would leave the page and open the file.
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
    const [file] = (kind === "drop" && event.dataTransfer?.files) || [];
    if (file) take(file);
  });
}
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file) take(file);
});

part("again").addEventListener("click", () => retry());
part("opacity").addEventListener("input", draw);
part("card").addEventListener("toggle", () => {
  if (part("card").open) loadCard().catch((problem) => (part("card-content").textContent = problem.message));
});

part("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = part("token").value.trim();
  try {
    await loadCard(); // it asks for the token as well, so that a wrong one shows before an image is sent
    if (job) take(job.file);
    else show("empty");
  } catch (problem) {
    showProblem(problem, askForToken);
  }
});

start();
