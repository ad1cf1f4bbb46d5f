// What is shown, and how. Text of a request is a stranger's: it gets into the
// page through textContent alone, and whatever can't be seen of it is made visible.

// el makes an element. Children are elements or strings.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

// Control characters, those that turn the direction of writing, and spaces that
// are none or look like the one: all but the space, and line ends and tabs in text of lines.
const unseen = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;

const code = (c) => "U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");

// visible is text on one line, with escapes for what can't be seen.
export function visible(text) {
  return Array.from(String(text ?? ""), (c) => (unseen.test(c) ? "⟨" + code(c) + "⟩" : c)).join("");
}

// source is a command's text as nodes: characters that can't be seen, and those
// beyond ASCII, which may look like others, are marked.
export function source(text) {
  const nodes = [];
  let run = "", kind = "";
  const flush = () => {
    if (!run) return;
    if (kind === "plain") nodes.push(document.createTextNode(run));
    else nodes.push(el("mark", { class: kind, title: kind === "unseen" ? "A character that can't be seen" : "Not ASCII: it may look like another character" }, run));
    run = "";
  };
  let unseenCount = 0, foreignCount = 0;
  for (const c of text) {
    let next = "plain", shown = c;
    if (c !== "\n" && c !== "\t" && unseen.test(c)) {
      next = "unseen"; shown = code(c); unseenCount++;
    } else if (c > "\x7e") {
      next = "foreign"; foreignCount++;
    }
    if (next !== kind || next === "unseen") flush();
    kind = next;
    run += shown;
  }
  flush();
  return { nodes, unseenCount, foreignCount };
}

// clock writes seconds as 4:05, or 2:03:04.
export function clock(seconds) {
  const s = Math.max(0, Math.ceil(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  return h > 0 ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

// span writes seconds in words.
export function span(seconds) {
  const parts = [];
  for (const [size, one, many] of [[86400, "day", "days"], [3600, "hour", "hours"], [60, "minute", "minutes"], [1, "second", "seconds"]]) {
    const n = Math.floor(seconds / size);
    if (n > 0) parts.push(`${n} ${n === 1 ? one : many}`);
    seconds -= n * size;
  }
  return parts.slice(0, 2).join(" ") || "0 seconds";
}

export const when = (time) => new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
export const atTime = (time) => new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

// title says in a few words what is asked.
export function title(r) {
  if (r.about === "session") return "Open a session";
  const kinds = [...new Set(r.parsed.kinds ?? [])];
  if (kinds.length === 0) return "Run a command";
  return kinds.slice(0, 3).join(", ") + (kinds.length > 3 ? " and more" : "");
}

export const stateNames = {
  pending: "Waiting", approved: "Approved", used: "Approved and run", denied: "Denied", expired: "Expired", cancelled: "Cancelled",
};

export const who = (p) => p.subject + "@" + p.issuer;

// fact is one row of a list of facts; nothing if there is no value.
export function fact(name, value, mono) {
  if (value === undefined || value === null || value === "") return [];
  return [el("dt", {}, name), el("dd", { class: mono ? "mono" : undefined }, typeof value === "string" ? visible(value) : value)];
}

// chips lists names, the first few of them.
export function chips(names, kind) {
  const most = 24;
  const list = el("ul", { class: "chips" }, names.slice(0, most).map((n) => el("li", { class: kind }, visible(n))));
  if (names.length > most) list.append(el("li", { class: "more" }, `and ${names.length - most} more`));
  return list;
}
