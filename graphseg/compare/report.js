"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /** An SVG element with attributes and, where given, text. */
  function svg(name, attributes = {}, text = null) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    return element;
  }

  // Pictures: one large, and all constructions in small; they show the same part.

  function pictures() {
    const viewer = byId("viewer"), image = byId("image"), construction = byId("construction");
    const thumbs = all(".thumb"), picks = all(".pick");
    const state = { image: 0, k: Math.max(0, data.images[0].drawn.indexOf(true)), zoom: 1, x: 0, y: 0 };
    const MOST = 32;

    function place() {
      const { width, height } = data.images[state.image];
      const w = width / state.zoom, h = height / state.zoom;
      state.x = clamp(state.x, 0, width - w);
      state.y = clamp(state.y, 0, height - h);
      const box = [state.x, state.y, w, h].map((v) => +v.toFixed(3)).join(" ");
      for (const one of [viewer, ...thumbs]) {
        one.setAttribute("viewBox", box);
        one.classList.toggle("near", one.clientWidth / w > 3);
      }
      viewer.classList.toggle("zoomed", state.zoom > 1);
      byId("zoom").textContent = `${state.zoom < 9.95 ? +state.zoom.toFixed(1) : Math.round(state.zoom)}×`;
      byId("zoom-out").disabled = state.zoom <= 1;
      byId("zoom-all").disabled = state.zoom <= 1;
      byId("zoom-in").disabled = state.zoom >= MOST;
    }

    function lay(element, k) {
      const shown = data.images[state.image].drawn[k] && byId("graph").checked;
      const [photo, overlay] = all("use", element);
      photo.setAttribute("href", `#photo-${state.image}`);
      if (shown) overlay.setAttribute("href", `#overlay-${state.image}-${k}`);
      else overlay.removeAttribute("href");
    }

    function show() {
      const { name, facts, short, drawn } = data.images[state.image];
      lay(viewer, state.k);
      thumbs.forEach((thumb, k) => lay(thumb, k));
      all(".thumbs .facts").forEach((element, k) => { element.textContent = short[k]; });
      picks.forEach((pick, k) => pick.setAttribute("aria-pressed", k === state.k));
      const title = data.constructions[state.k];
      byId("shown").textContent = title;
      byId("facts").textContent = facts[state.k] || (drawn[state.k] ? "" : "no picture");
      byId("image-name").textContent = name;
      viewer.setAttribute("aria-label", `${title} on ${name}`);
      image.value = state.image;
      construction.value = state.k;
      place();
    }

    /** Zooms so that the point (u, v) of the view, as shares of its sides, stays where it is. */
    function zoom(factor, u = 0.5, v = 0.5) {
      const { width, height } = data.images[state.image];
      const before = state.zoom;
      state.zoom = clamp(before * factor, 1, MOST);
      if (state.zoom < 1.001) state.zoom = 1;
      state.x += u * width * (1 / before - 1 / state.zoom);
      state.y += v * height * (1 / before - 1 / state.zoom);
      place();
    }

    /** Moves by shares of the view. */
    function move(u, v) {
      const { width, height } = data.images[state.image];
      state.x += (u * width) / state.zoom;
      state.y += (v * height) / state.zoom;
      place();
    }

    /** Where on the picture a pointer is, as shares of its sides, and the picture's size on the screen. */
    function spot(event) {
      const { width, height } = data.images[state.image];
      const box = viewer.getBoundingClientRect();
      const scale = Math.min(box.width / width, box.height / height);
      const w = width * scale, h = height * scale;
      const u = (event.clientX - box.left - (box.width - w) / 2) / w;
      const v = (event.clientY - box.top - (box.height - h) / 2) / h;
      return { u: clamp(u, 0, 1), v: clamp(v, 0, 1), w, h };
    }

    image.addEventListener("change", () => {
      Object.assign(state, { image: +image.value, zoom: 1, x: 0, y: 0 });
      show();
    });
    construction.addEventListener("change", () => { state.k = +construction.value; show(); });
    byId("graph").addEventListener("change", show);
    byId("zoom-in").addEventListener("click", () => zoom(1.5));
    byId("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
    byId("zoom-all").addEventListener("click", () => zoom(0));
    for (const pick of [...picks, ...thumbs]) {
      pick.addEventListener("click", () => { state.k = +pick.dataset.k; show(); });
    }

    const KEYS = {
      "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => zoom(0),
      ArrowLeft: () => move(-0.15, 0), ArrowRight: () => move(0.15, 0),
      ArrowUp: () => move(0, -0.15), ArrowDown: () => move(0, 0.15),
    };
    viewer.addEventListener("keydown", (event) => {
      const still = state.zoom === 1 && event.key.startsWith("Arrow"); // the page may scroll
      if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey || still) return;
      event.preventDefault();
      KEYS[event.key]();
    });

    viewer.addEventListener("wheel", (event) => {
      // Only once the picture has been clicked, or with Ctrl: else the page scrolls past it.
      if (document.activeElement !== viewer && !event.ctrlKey) return;
      if (state.zoom === 1 && event.deltaY > 0 && !event.ctrlKey) return;
      event.preventDefault();
      const { u, v } = spot(event);
      const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1);
      zoom(Math.exp(-clamp(pixels, -200, 200) * (event.ctrlKey ? 0.01 : 0.002)), u, v);
    }, { passive: false });
    viewer.addEventListener("dblclick", (event) => {
      const { u, v } = spot(event);
      zoom(2, u, v);
    });

    const fingers = new Map();
    /** The middle of all fingers, and how far apart two are. */
    function grip() {
      const [a, b = a] = [...fingers.values()];
      const middle = { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
      return { ...middle, apart: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1 };
    }
    viewer.addEventListener("pointerdown", (event) => {
      if (event.button || fingers.size === 2) return;
      fingers.set(event.pointerId, event);
      viewer.setPointerCapture(event.pointerId);
      viewer.classList.add("dragged");
    });
    viewer.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return;
      const before = grip();
      fingers.set(event.pointerId, event);
      const now = grip(), { u, v, w, h } = spot(before);
      if (fingers.size === 2) zoom(now.apart / before.apart, u, v);
      move((before.clientX - now.clientX) / w, (before.clientY - now.clientY) / h);
    });
    for (const type of ["pointerup", "pointercancel"]) {
      viewer.addEventListener(type, (event) => {
        fingers.delete(event.pointerId);
        if (!fingers.size) viewer.classList.remove("dragged");
      });
    }
    show();
  }

  // Tables: a click on a head sorts all of them alike; a second one turns the order, a third undoes it.

  function tables() {
    const found = all("#results table");
    const order = { measure: null, direction: 0 };
    const values = new Map(data.measures.map((m) => [m.name, m.values.map((v) => v[0])]));
    const names = new Intl.Collator("en", { numeric: true });

    function sorted() {
      const rows = data.constructions.map((_, k) => k);
      const by = values.get(order.measure);
      if (!order.direction) return rows;
      return rows.sort((a, b) => {
        if (!by) return order.direction * names.compare(data.constructions[a], data.constructions[b]) || a - b;
        if (by[a] === null || by[b] === null) return (by[a] === null) - (by[b] === null) || a - b; // none comes last
        return order.direction * (by[a] - by[b]) || a - b;
      });
    }

    function sort(measure, better) {
      const first = better === "high" ? -1 : 1;
      if (order.measure !== measure) Object.assign(order, { measure, direction: first });
      else order.direction = { [first]: -first, [-first]: 0, 0: first }[order.direction];
      const rows = sorted();
      for (const table of found) {
        const body = table.tBodies[0];
        const byPlace = new Map([...body.rows].map((row) => [+row.dataset.k, row]));
        body.append(...rows.map((k) => byPlace.get(k)));
        for (const head of all("th[data-measure]", table)) {
          if (head.dataset.measure !== measure || !order.direction) head.removeAttribute("aria-sort");
          else head.setAttribute("aria-sort", order.direction > 0 ? "ascending" : "descending");
        }
      }
    }

    for (const head of found.flatMap((table) => all("th[data-measure]", table))) {
      head.querySelector("button").addEventListener("click", () => sort(head.dataset.measure, head.dataset.better));
    }

    const tabs = byId("results").querySelector(".tabs");
    if (!tabs) return;
    function open(name) {
      for (const tab of all("button", tabs)) tab.setAttribute("aria-pressed", tab.dataset.table === name);
      for (const part of all(".table")) part.classList.toggle("away", name !== "" && part.dataset.table !== name);
    }
    for (const tab of all("button", tabs)) tab.addEventListener("click", () => open(tab.dataset.table));
    tabs.hidden = false;
    open(tabs.firstElementChild.dataset.table);
  }

  // Plots.

  const measures = new Map(data.measures.map((m) => [m.name, m]));

  function written(measure, value) {
    const options = { minimumFractionDigits: measure.decimals, maximumFractionDigits: measure.decimals };
    const scaled = value * measure.factor, text = scaled.toLocaleString("en", options);
    const tiny = measure.tiny && scaled && !/[1-9]/.test(text);
    return (tiny ? scaled.toExponential(1) : text) + (measure.unit ? ` ${measure.unit}` : "");
  }

  /** From values to [0, 1], and where its marks are: logarithmic where values are positive and far apart. */
  function axis(measure, points) {
    const ends = points.flatMap((p) => p).filter((v) => v !== null).map((v) => v * measure.factor);
    const means = points.map((p) => p[0] * measure.factor);
    const log = Math.min(...means) > 0 && Math.max(...means) / Math.min(...means) >= 20;
    let low = Math.min(...ends.filter((v) => !log || v >= Math.min(...means) / 3)), high = Math.max(...ends);
    const to = log ? Math.log10 : (v) => v;
    let [a, b] = [to(low), to(high)];
    if (b - a < 1e-9 * Math.max(1, Math.abs(a))) [a, b] = [a - (log ? 0.3 : Math.abs(a) / 10 || 0.5), b + (log ? 0.3 : Math.abs(b) / 10 || 0.5)];
    const pad = 0.08 * (b - a);
    if (!log && measure.unit !== "" && a >= 0 && a - pad < 0) a = 0; else a -= pad;
    b += pad;
    const ticks = log ? decades(a, b) : steps(a, b);
    const digits = log || ticks.length < 2 ? 6 : clamp(Math.ceil(-Math.log10(ticks[1] - ticks[0]) - 1e-9), 0, 6);
    const options = { minimumFractionDigits: log ? 0 : digits, maximumFractionDigits: digits };
    const text = (v) => v.toLocaleString("en", v >= 1e5 ? { notation: "compact" } : options);
    return { log, ticks, text, at: (value) => (to(value * measure.factor) - a) / (b - a), tickAt: (v) => (to(v) - a) / (b - a) };
  }

  function decades(a, b) {
    const every = (parts) => {
      const found = [];
      for (let e = Math.floor(a); e <= b; e++) {
        for (const part of parts) {
          const value = part * 10 ** e, place = Math.log10(value);
          if (place >= a && place <= b) found.push(value);
        }
      }
      return found;
    };
    const wide = every([1]);
    return wide.length > 3 ? wide : wide.length > 1 ? every([1, 3]) : every([1, 2, 5]);
  }

  function steps(a, b) {
    const rough = (b - a) / 5, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= rough);
    const found = [];
    for (let k = Math.ceil(a / step); k * step <= b; k++) found.push(+(k * step).toPrecision(12));
    return found;
  }

  /** Constructions that no other one beats by one measure without losing by the other. */
  function front(shown, x, y) {
    const sign = (m) => (m.better === "high" ? 1 : -1);
    const good = (k) => [sign(x) * x.values[k][0], sign(y) * y.values[k][0]];
    return shown.filter((k) => {
      const [p, q] = good(k);
      return !shown.some((other) => {
        const [r, s] = good(other);
        return r >= p && s >= q && (r > p || s > q);
      });
    });
  }

  function tipOn(element, text) {
    const tip = byId("tip");
    const open = () => {
      tip.textContent = text;
      tip.hidden = false;
      const box = element.getBoundingClientRect();
      const left = clamp(box.left + box.width / 2 - tip.offsetWidth / 2, 8, innerWidth - tip.offsetWidth - 8);
      const above = box.top - tip.offsetHeight - 10;
      tip.style.left = `${left + scrollX}px`;
      tip.style.top = `${(above > 4 ? above : box.bottom + 10) + scrollY}px`;
    };
    const close = () => { tip.hidden = true; };
    for (const type of ["pointerenter", "focus"]) element.addEventListener(type, open);
    for (const type of ["pointerleave", "blur"]) element.addEventListener(type, close);
    element.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  }

  function draw(figure) {
    const x = measures.get(figure.dataset.x), y = measures.get(figure.dataset.y);
    const canvas = figure.querySelector(".canvas"), caption = figure.querySelector("figcaption");
    const shown = data.constructions.map((_, k) => k).filter((k) => x.values[k][0] !== null && y.values[k][0] !== null);
    byId("tip").hidden = true;
    if (!shown.length) {
      canvas.replaceChildren();
      caption.textContent = "No construction has both measures.";
      return;
    }
    const W = Math.max(300, canvas.clientWidth || 520), H = Math.round(clamp(0.8 * W, 320, 460));
    const ax = axis(x, shown.map((k) => x.values[k])), ay = axis(y, shown.map((k) => y.values[k]));
    const left = 27 + 6.6 * Math.max(...ay.ticks.map((t) => ay.text(t).length)), top = 12, right = 14, bottom = 46;
    const px = (u) => left + u * (W - left - right), py = (u) => H - bottom - u * (H - top - bottom);
    const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": `${y.label} against ${x.label}` });
    canvas.replaceChildren(picture);

    let last = -Infinity;
    for (const tick of ax.ticks) {
      const at = px(ax.tickAt(tick)), text = ax.text(tick);
      picture.append(svg("line", { class: "grid", x1: at, x2: at, y1: top, y2: H - bottom }));
      if (at - last < 7 * text.length + 6) continue;
      picture.append(svg("text", { x: at, y: H - bottom + 17, "text-anchor": "middle" }, text));
      last = at;
    }
    for (const tick of ay.ticks) {
      const at = py(ay.tickAt(tick));
      picture.append(svg("line", { class: "grid", x1: left, x2: W - right, y1: at, y2: at }));
      picture.append(svg("text", { x: left - 7, y: at + 4, "text-anchor": "end" }, ay.text(tick)));
    }
    const axisTitle = (m, a) => m.label + (m.unit ? ` [${m.unit}]` : "") + (a.log ? ", log scale" : "");
    picture.append(svg("text", { class: "title", x: (left + W - right) / 2, y: H - 6, "text-anchor": "middle" }, axisTitle(x, ax)));
    picture.append(svg("text", { class: "title", transform: `translate(12 ${(top + H - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, axisTitle(y, ay)));

    const place = shown.map((k) => ({ k, x: px(ax.at(x.values[k][0])), y: py(ay.at(y.values[k][0])) }));
    const directed = x.better && y.better && x !== y;
    const best = directed ? front(shown, x, y) : [];
    const barred = []; // boxes that names keep off
    if (best.length > 1) {
      const line = place.filter((p) => best.includes(p.k)).sort((a, b) => (x.better === "low" ? a.x - b.x : b.x - a.x));
      const path = line.map((p, i) => (i ? `H${p.x.toFixed(1)}V${p.y.toFixed(1)}` : `M${p.x.toFixed(1)} ${p.y.toFixed(1)}`));
      picture.append(svg("path", { class: "front", d: path.join("") }));
      line.slice(1).forEach((p, i) => {
        const q = line[i]; // first level at the height of the better one, then upright
        barred.push([Math.min(p.x, q.x), q.y - 2, Math.max(p.x, q.x), q.y + 2], [p.x - 2, Math.min(p.y, q.y), p.x + 2, Math.max(p.y, q.y)]);
      });
    }

    const inside = (u) => clamp(u, 0, 1);
    for (const p of place) {
      const [, lowX, highX] = x.values[p.k], [, lowY, highY] = y.values[p.k];
      const bar = svg("g", { class: `c${p.k} spread` });
      const from = (a, v) => { const u = a.at(v); return Number.isFinite(u) ? inside(u) : 0; };
      if (lowX !== null && highX !== null) bar.append(svg("line", { x1: px(from(ax, lowX)), x2: px(from(ax, highX)), y1: p.y, y2: p.y }));
      if (lowY !== null && highY !== null) bar.append(svg("line", { y1: py(from(ay, lowY)), y2: py(from(ay, highY)), x1: p.x, x2: p.x }));
      picture.append(bar);
    }
    for (const p of place) {
      const lines = [data.constructions[p.k], `${x.label}: ${written(x, x.values[p.k][0])}`, `${y.label}: ${written(y, y.values[p.k][0])}`];
      if (best.includes(p.k)) lines.push("on the Pareto front");
      const point = svg("g", { class: `point c${p.k}`, tabindex: 0, role: "img", "aria-label": lines.join(", "), transform: `translate(${p.x.toFixed(1)} ${p.y.toFixed(1)})`, "data-k": p.k });
      point.append(svg("circle", { r: 14, fill: "transparent", stroke: "none" }));
      point.append(svg("use", { href: `#marker-${marker(p.k)}`, transform: best.includes(p.k) || !directed ? "scale(1)" : "scale(0.8)" }));
      tipOn(point, lines.join("\n"));
      picture.append(point);
    }
    const inFront = (p) => best.includes(p.k);
    const order = [...place].sort((a, b) => inFront(b) - inFront(a) || a.y - b.y || a.x - b.x);
    label(picture, order, barred, { left, top, right: W - right, bottom: H - bottom });
    const list = best.map((k) => data.constructions[k]).join(", ");
    caption.textContent = directed ? `On the front: ${list}.` : "No front: not both measures have a better end.";
  }

  const shapes = new Map();
  const marker = (k) => shapes.get(k) ?? "0";

  /** Names beside their points where they cover nothing; with a line to the point where they stand off; else left out. */
  function label(picture, place, barred, frame) {
    const taken = [...barred, ...place.map((p) => [p.x - 7, p.y - 7, p.x + 7, p.y + 7])];
    const free = (box) => box[0] >= frame.left && box[2] <= frame.right + 10 && box[1] >= frame.top - 8 && box[3] <= frame.bottom &&
      !taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3]);
    for (const p of place) {
      const name = data.constructions[p.k];
      const text = svg("text", { class: "label" }, name.length > 26 ? `${name.slice(0, 25)}…` : name);
      picture.append(text);
      const w = text.getComputedTextLength(), h = 13;
      const at = candidates(p, w, h).find((c) => free([c.x, c.y - h + 3, c.x + w, c.y + 3]));
      if (!at) {
        text.remove();
        continue;
      }
      text.setAttribute("x", at.x.toFixed(1));
      text.setAttribute("y", at.y.toFixed(1));
      taken.push([at.x - 2, at.y - h + 2, at.x + w + 2, at.y + 4]);
      if (at.far) {
        const end = { x: clamp(p.x, at.x, at.x + w), y: at.y - 4 + (at.y - 4 > p.y ? -6 : 6) };
        picture.insertBefore(svg("line", { class: "leader", x1: p.x, y1: p.y, x2: end.x.toFixed(1), y2: end.y.toFixed(1) }), picture.querySelector(".spread"));
      }
    }
  }

  function candidates(p, w, h) {
    const near = [
      { x: p.x + 10, y: p.y + 4 }, { x: p.x - 10 - w, y: p.y + 4 },
      { x: p.x - w / 2, y: p.y - 11 }, { x: p.x - w / 2, y: p.y + 20 },
      { x: p.x + 8, y: p.y - 7 }, { x: p.x + 8, y: p.y + 16 }, { x: p.x - 8 - w, y: p.y - 7 }, { x: p.x - 8 - w, y: p.y + 16 },
    ];
    const far = [];
    for (const away of [26, 40, 56, 74, 94, 116]) {
      for (const side of [-1, 1]) {
        for (const shift of [0.5, 0.1, 0.9, -0.2, 1.2]) far.push({ x: p.x - shift * w, y: p.y + side * away + 4, far: true });
      }
    }
    return [...near, ...far];
  }

  function plots() {
    for (const mark of all("svg.mark")) {
      const k = [...mark.classList].find((name) => /^c\d+$/.test(name)).slice(1);
      shapes.set(+k, mark.querySelector("use").getAttribute("href").slice("#marker-".length));
    }
    const figures = all(".plot");
    for (const figure of figures) {
      for (const side of ["x", "y"]) {
        const select = figure.querySelector(`select.${side}`);
        for (const group of new Set(data.measures.map((m) => m.group))) {
          const part = document.createElement("optgroup");
          part.label = group;
          part.append(...data.measures.filter((m) => m.group === group).map((m) => new Option(m.label, m.name)));
          select.append(part);
        }
        select.value = figure.dataset[side];
        select.addEventListener("change", () => {
          figure.dataset[side] = select.value;
          draw(figure);
        });
      }
      draw(figure);
    }
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth !== width) figures.forEach(draw);
      width = innerWidth;
    });
  }

  // Comparisons: of many pairs those with one construction.

  function comparisons() {
    for (const box of all(".compared")) {
      const items = all("li", box);
      const ends = items.map((item) => item.dataset.ends.split(" ").filter(Boolean).map(Number));
      const present = [...new Set(ends.flat())].sort((a, b) => a - b);
      if (items.length < 8 || present.length < 3) continue;
      const select = box.querySelector("select");
      select.append(new Option("every construction", ""), ...present.map((k) => new Option(data.constructions[k], k)));
      const count = (k) => items.filter((item, i) => ends[i].includes(k) && item.classList.contains("significant")).length;
      select.value = present.reduce((a, b) => (count(b) > count(a) ? b : a)); // has the most to say
      const filter = () => items.forEach((item, i) => {
        item.hidden = select.value !== "" && !ends[i].includes(+select.value);
      });
      select.addEventListener("change", filter);
      box.querySelector(".filter").hidden = false;
      filter();
    }
  }

  if (data.images.length) pictures();
  if (byId("results")) tables();
  plots();
  comparisons();
})();
