// What the widgets share. It stands before each widget's own script, in one module: nothing is loaded from elsewhere.

/** An element with attributes (`on...` are listeners; null and false leave one out) and children (elements or text). */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for pictures of lines and shapes. */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Replace what is in an element; who had the keyboard's focus has it again if the same `data-key` is there. */
function redraw(element, ...children) {
  const key = element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  element.replaceChildren(...children.filter((child) => child !== null));
  if (!key) return;
  const same = [...element.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key && !one.disabled);
  (same ?? element.closest(".medic-widget"))?.focus({ preventScroll: true });
}

/** A choice with a name in front; `options` are [value, text, count]. */
function choice(name, onchange) {
  const list = make("select", { "aria-label": name, onchange: () => onchange(list.value) });
  const label = make("label", { class: "medic-choice" }, make("span", {}, name), list);
  let shown = "";
  return {
    label,
    update(options, value) {
      const wanted = JSON.stringify(options);
      if (wanted !== shown) {
        shown = wanted;
        const text = ([, words, count]) => (count === undefined ? words : `${words} (${count})`);
        list.replaceChildren(...options.map((one) => make("option", { value: one[0] }, text(one))));
      }
      list.value = value;
    },
  };
}

/** The widget's frame: a keyboard's place of its own, a line that says what happened, a box for what went wrong. */
function frame(name, model, keys) {
  const notice = make("p", { class: "medic-notice", role: "status", "aria-live": "polite" });
  const error = make("div", { class: "medic-error", role: "alert", hidden: true });
  let last = null;
  const root = make("section", {
    class: `medic-widget medic-${name}`,
    tabindex: "0",
    // Jupyter's own shortcuts (x cuts the cell) must not act on keys that are meant for the widget.
    "data-lm-suppress-shortcuts": "true",
    onkeydown(event) {
      event.stopPropagation();
      if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) || event.altKey || event.metaKey) return;
      const act = keys[event.ctrlKey ? `Ctrl+${event.key.toLowerCase()}` : event.key];
      if (!act) return;
      event.preventDefault();
      act(event);
    },
  });
  return {
    root,
    notice,
    error,
    send(message) {
      last = message;
      model.send(message);
    },
    /** Show what Python said. A change that failed can be tried again as it was. */
    said(state) {
      if (notice.textContent !== state.notice) notice.textContent = state.notice;
      error.hidden = !state.error;
      if (!state.error) return error.replaceChildren();
      const again = make("button", { type: "button", onclick: () => last && model.send(last) }, "Try again");
      error.replaceChildren(make("strong", {}, "Nothing was changed: "), make("span", {}, `${state.error} `), last ? again : "");
    },
  };
}

/** Small copies of images: asked of Python when they are to be seen, many in one message, and kept for a while. */
function imagesOf(model) {
  const kept = new Map();
  const waiting = new Map();
  const asked = { thumbnail: new Set(), large: new Set() };
  const limits = { thumbnail: 400, large: 24 };

  const answer = (message, buffers) => {
    if (!message.image) return;
    const key = `${message.size} ${message.image}`;
    const found = message.reason
      ? { reason: message.reason, detail: message.detail }
      : { url: URL.createObjectURL(new Blob([buffers[0]], { type: message.type })) };
    kept.set(key, found);
    forget(message.size);
    for (const holder of waiting.get(key) ?? []) if (holder.dataset.image === key) put(holder, found);
    waiting.delete(key);
  };

  const forget = (size) => {
    const same = [...kept.keys()].filter((key) => key.startsWith(`${size} `));
    for (const key of same.slice(0, Math.max(0, same.length - limits[size]))) {
      if (kept.get(key).url) URL.revokeObjectURL(kept.get(key).url);
      kept.delete(key);
    }
  };

  const ask = (image, size) => {
    if (!asked.thumbnail.size && !asked.large.size) {
      queueMicrotask(() => {
        for (const one of ["large", "thumbnail"]) {
          const names = [...asked[one]];
          asked[one].clear();
          if (names.length) model.send({ do: "images", names, size: one });
        }
      });
    }
    asked[size].add(image);
  };

  const put = (holder, found) => {
    if (found.url) {
      const picture = make("img", { src: found.url, alt: holder.dataset.alt, draggable: "false" });
      picture.addEventListener("load", () => picture.classList.toggle("medic-tiny", picture.naturalWidth < 96));
      holder.replaceChildren(picture);
    } else {
      const words = holder.dataset.image.startsWith("large") ? found.detail : found.reason.replaceAll("_", " ");
      holder.replaceChildren(make("span", { class: "medic-unreadable", title: found.detail }, words));
    }
  };

  model.on("msg:custom", answer);
  return {
    /** Show an image in `holder`, now or when it arrives. */
    show(holder, image, size, alt) {
      const key = `${size} ${image}`;
      if (holder.dataset.image === key && holder.childNodes.length) return;
      holder.dataset.image = key;
      holder.dataset.alt = alt;
      if (kept.has(key)) return put(holder, kept.get(key));
      holder.replaceChildren();
      waiting.set(key, [...(waiting.get(key) ?? []), holder]);
      ask(image, size);
    },
    /** Ask for an image that is likely to be wanted next. */
    expect(image, size) {
      const key = `${size} ${image}`;
      if (kept.has(key) || waiting.has(key)) return;
      waiting.set(key, []);
      ask(image, size);
    },
    close() {
      model.off("msg:custom", answer);
      for (const { url } of kept.values()) if (url) URL.revokeObjectURL(url);
    },
  };
}

/** Names and values as a list of definitions. */
function listOf(facts) {
  return make("dl", { class: "medic-facts" }, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(1)}\u00a0%` : "none");
