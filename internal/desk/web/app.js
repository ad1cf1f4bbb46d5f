import { atTime, chips, clock, el, fact, source, span, stateNames, title, visible, when, who } from "./show.js";

const $ = (id) => document.getElementById(id);
const mostOver = 50;

const views = new Map(); // id → view, with "ends": when it expires on this machine's clock
let me = null;
let selected = null; // id
let stream = null;
let retry = 1000;
let shownKey = ""; // of the detail that is shown: it is made anew only when that changes
const drafts = new Map(); // id → what the person has written

// ---- asking the sink

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(path, method = "GET", body) {
  const headers = {};
  if (method !== "GET") headers["X-Chaperone-CSRF"] = me.csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin", cache: "no-store", redirect: "error" });
  } catch {
    throw new Refused(0, "The sink can't be reached.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    if (response.status === 401) loggedOut();
    throw new Refused(response.status, answer.error || `The sink answered ${response.status}.`);
  }
  return answer;
}

function take(view) {
  view.ends = performance.now() + view.left * 1000;
  const before = views.get(view.request.id);
  views.set(view.request.id, view);
  if (!before && view.state === "pending") {
    $("announce").textContent = `New request: ${title(view.request)} at ${visible(view.request.target.name)}, for ${visible(view.request.principal.subject)}`;
  }
}

async function reload() {
  const list = await ask("/v1/approvals?state=all");
  const kept = new Set(list.slice(0, 500).map((v) => v.request.id));
  for (const id of views.keys()) if (!kept.has(id)) views.delete(id);
  list.forEach(take);
  draw();
}

function connect() {
  stream?.close();
  stream = new EventSource("/v1/approvals/watch");
  stream.onopen = () => {
    retry = 1000;
    reload().catch(() => {});
  };
  stream.addEventListener("ping", (e) => live(JSON.parse(e.data).current ? "on" : "old"));
  stream.addEventListener("approval", (e) => { take(JSON.parse(e.data)); draw(); });
  stream.onerror = () => {
    live("off");
    if (stream.readyState !== EventSource.CLOSED) return; // the browser tries again
    setTimeout(() => ask("/v1/whoami").then((w) => { me = w; connect(); }, (err) => { if (err.status !== 401) connect(); }), retry);
    retry = Math.min(2 * retry, 30000);
  };
}

function live(state) {
  $("live").dataset.state = state;
  const text = { on: "Live", old: "NATS is away: this may be old", off: "Connecting again" }[state];
  if ($("live-text").textContent !== text) $("live-text").textContent = text;
}

function loggedOut() {
  stream?.close();
  me = null;
  views.clear();
  drafts.clear();
  $("detail").replaceChildren();
  shownKey = "";
  $("desk").hidden = $("me").hidden = $("logout").hidden = $("live").hidden = true;
  $("login").hidden = false;
  $("login-link").href = "/login?next=" + encodeURIComponent(location.pathname);
  document.title = "Log in · Chaperone";
}

// ---- lists

const pendingFirst = (a, b) => a.ends - b.ends; // what ends first comes first
const newestFirst = (a, b) => b.changed.localeCompare(a.changed);
const left = (v) => (v.ends - performance.now()) / 1000;

// stateOf is the state by this machine's clock: what has run out is not waiting.
const stateOf = (v) => (v.state === "pending" && left(v) <= 0 ? "expired" : v.state);

function draw() {
  const all = [...views.values()];
  const pending = all.filter((v) => stateOf(v) === "pending").sort(pendingFirst);
  const over = all.filter((v) => stateOf(v) !== "pending").sort(newestFirst).slice(0, mostOver);
  fill($("pending"), pending);
  fill($("history"), over);
  $("pending-count").textContent = pending.length;
  $("pending-empty").hidden = pending.length > 0;
  $("history-section").hidden = over.length === 0;
  document.title = (pending.length ? `(${pending.length}) ` : "") + "Approvals · Chaperone";
  if (!selected && pending.length && wide.matches) select(pending[0].request.id, false);
  drawDetail();
  tick();
}

// fill brings a list up to date, and leaves the focus where it is.
function fill(list, wanted) {
  const old = new Map([...list.children].map((li) => [li.dataset.id, li]));
  wanted.forEach((v, at) => {
    const id = v.request.id;
    let li = old.get(id);
    old.delete(id);
    if (!li || li.dataset.state !== stateOf(v)) {
      const fresh = row(v);
      li?.replaceWith(fresh);
      li = fresh;
    }
    li.firstChild.setAttribute("aria-current", id === selected ? "true" : "false");
    if (list.children[at] !== li) list.insertBefore(li, list.children[at] ?? null);
  });
  for (const li of old.values()) li.remove();
}

function row(v) {
  const r = v.request, state = stateOf(v);
  const button = el("a", { class: "row", href: "/approvals/" + r.id, onclick: (e) => { if (plainClick(e)) { e.preventDefault(); select(r.id, true); } } },
    el("span", { class: "row-top" }, el("strong", {}, visible(title(r))), el("span", { class: "tag " + state, "data-left": state === "pending" ? r.id : undefined }, stateNames[state])),
    el("span", { class: "row-where" }, visible(r.target.name) + (r.target.database ? " / " + visible(r.target.database) : "")),
    el("span", { class: "row-who" }, visible(r.principal.subject) + " · " + visible(r.workload.name)));
  const li = el("li", {}, button);
  if (state === "pending") li.append(el("i", { class: "fuse", "data-fuse": r.id, "aria-hidden": "true" }));
  li.dataset.id = r.id;
  li.dataset.state = state;
  return li;
}

const plainClick = (e) => e.button === 0 && !e.metaKey && !e.ctrlKey && !e.shiftKey && !e.altKey;

// ---- one request

const wide = matchMedia("(min-width: 60rem)");

function select(id, push) {
  selected = id;
  $("desk").classList.toggle("one", push);
  if (push) {
    if (location.pathname !== "/approvals/" + id) history.pushState(null, "", "/approvals/" + id);
    drawLists();
    drawDetail();
    $("detail").focus({ preventScroll: wide.matches });
    if (!wide.matches) scrollTo(0, 0);
    if (!views.has(id)) ask("/v1/approvals/" + encodeURIComponent(id)).then((v) => { take(v); selected = v.request.id; draw(); }, (err) => missing(err));
  } else drawLists();
}

function drawLists() {
  for (const a of document.querySelectorAll(".row")) a.setAttribute("aria-current", a.parentElement.dataset.id === selected ? "true" : "false");
}

function back() {
  $("desk").classList.remove("one");
  history.pushState(null, "", "/");
  document.querySelector('.row[aria-current="true"]')?.focus();
}

function missing(err) {
  shownKey = "";
  $("detail").replaceChildren(el("div", { class: "nothing" }, el("p", {}, err.message), el("p", {}, el("a", { href: "/" }, "All requests"))));
}

function drawDetail() {
  const v = views.get(selected);
  if (!v) {
    if (!selected) $("detail").replaceChildren(el("div", { class: "nothing" }, el("p", {}, "Choose a request to look at.")));
    return;
  }
  // Made anew only when something has changed: a person may be writing in it.
  const key = JSON.stringify([v.request.id, v.request.digest, stateOf(v), v.may, v.mayNot, v.message, v.votes]);
  if (key === shownKey) return;
  const focus = document.activeElement?.id;
  shownKey = key;
  $("detail").replaceChildren(...detail(v));
  if (focus && $("detail").contains($(focus))) $(focus).focus();
}

function detail(v) {
  const r = v.request, state = stateOf(v);
  return [
    el("button", { class: "button quiet back", type: "button", onclick: back }, "‹ All requests"),
    el("header", { class: "detail-head" },
      el("div", {},
        el("h1", {}, visible(title(r)), el("span", { class: "at" }, " at "), visible(r.target.name)),
        el("p", { class: "sub" }, "for ", el("strong", {}, visible(who(r.principal))), " · asked ", el("time", { datetime: r.created, title: when(r.created) }, atTime(r.created)))),
      state === "pending"
        ? el("div", { class: "timer" }, el("b", { "data-left": r.id }, clock(left(v))), el("span", {}, "left to answer"))
        : el("div", { class: "outcome " + state }, el("b", {}, stateNames[state]), el("span", {}, atTime(v.changed)))),
    v.message ? el("p", { class: "told" }, visible(v.message)) : null,
    command(r),
    touches(r),
    why(r),
    el("div", { class: "two" }, whoAsks(r), whereTo(r)),
    votes(v),
    el("details", { class: "fine" }, el("summary", {}, "What an answer is bound to"),
      el("dl", { class: "facts" }, fact("Request", r.id, true), fact("Digest", r.digest, true), fact("Session", r.session, true), fact("Documents", r.revision, true), fact("Asked", when(r.created)), fact("Ends", when(r.expires)))),
    state === "pending" ? answer(v) : null,
  ].filter(Boolean);
}

function section(name, ...children) {
  return el("section", { class: "part", "aria-label": name }, el("h2", {}, name), children);
}

function why(r) {
  return section("Why you are asked",
    r.why ? el("p", { class: "why" }, visible(r.why)) : null,
    el("dl", { class: "facts" }, fact("Policy", r.policy), fact("Rule", r.rule), r.when ? fact("When", el("code", {}, source(r.when).nodes)) : []));
}

function command(r) {
  if (!r.text && r.about === "session") return section("What is asked", el("p", {}, "To open a session. If it is approved, the policy decides what may be done in it."));
  const text = source(r.text ?? "");
  const notes = [];
  if (r.cut) notes.push(el("p", { class: "warn" }, "The text is cut here. The answer is for the whole of it; its recording has the rest."));
  if (text.unseenCount) notes.push(el("p", { class: "warn" }, `${text.unseenCount} character${text.unseenCount === 1 ? "" : "s"} that can't be seen ${text.unseenCount === 1 ? "is" : "are"} shown by code.`));
  if (text.foreignCount) notes.push(el("p", { class: "hint" }, "Underlined characters are not ASCII and may look like others."));
  const children = [el("pre", { class: "source", tabindex: "0", "aria-label": "The command" }, el("code", {}, text.nodes)), notes];
  if (r.parameters?.length) {
    children.push(el("h3", {}, "Parameters"), el("ol", { class: "parameters" }, r.parameters.map((p, at) => el("li", {}, el("span", {}, `$${at + 1}`), el("code", {}, source(p).nodes)))));
  }
  return section("The command", children, el("p", { class: "hint" }, "Secrets that Chaperone found in it are covered."));
}

function touches(r) {
  const p = r.parsed, parts = [];
  const effects = [];
  if ((p.kinds ?? []).length || (p.tables ?? []).length || (p.functions ?? []).length) effects.push(p.readOnly ? ["Read only", "calm"] : ["May change data", "alarm"]);
  if (p.ddl) effects.push(["Changes the schema", "alarm"]);
  if (effects.length) parts.push(el("ul", { class: "chips" }, effects.map(([text, kind]) => el("li", { class: kind }, text))));
  const rows = [];
  if (p.kinds?.length) rows.push(...fact("Kinds", chips(p.kinds, "")));
  if (p.tables?.length) rows.push(...fact("Tables", chips(p.tables, "mono")));
  if (p.functions?.length) rows.push(...fact("Functions", chips(p.functions, "mono")));
  if (rows.length) parts.push(el("dl", { class: "facts" }, rows));
  return parts.length ? section("What it touches", parts) : null;
}

function whoAsks(r) {
  return section("Who",
    el("dl", { class: "facts" },
      fact("Acts for", who(r.principal)), fact("Groups", (r.principal.groups ?? []).join(", ")),
      fact("Job", r.workload.name), fact("Job id", r.workload.job, true), fact("Unit", r.workload.unit, true),
      fact("Process", r.process.pid ? `${r.process.comm ?? ""} [${r.process.pid}]` : ""), fact("Program", r.process.executable, true),
      fact("Node", r.node + " in " + r.cluster)));
}

function whereTo(r) {
  const t = r.target;
  return section("Where",
    el("dl", { class: "facts" },
      fact("Target", t.name), fact("Protocol", t.protocol), fact("Host", t.host, true), fact("Address", t.address, true), fact("Database", t.database, true)));
}

function votes(v) {
  const r = v.request, need = Math.max(r.count, 1);
  const yes = v.votes.filter((o) => o.verdict === "approve").length;
  const mode = r.mode === "retry"
    ? "The client was told to send the command again once it is approved."
    : "The client waits for the answer.";
  return section("Answers",
    el("p", { class: "quorum" },
      el("span", { class: "dots", "aria-hidden": "true" }, Array.from({ length: need }, (_, at) => el("i", { class: at < yes ? "full" : "" }))),
      `${yes} of ${need} ${need === 1 ? "person" : "people"} said yes. One no denies it.`),
    v.votes.length ? el("ul", { class: "votes" }, v.votes.map((o) => el("li", {},
      el("span", { class: "tag " + (o.verdict === "approve" ? "approved" : "denied") }, o.verdict === "approve" ? "Yes" : "No"),
      el("span", {}, el("strong", {}, visible(o.by.name || o.by.subject)), " ", el("small", {}, visible(who(o.by))),
        el("small", {}, ` · ${atTime(o.at)} · ${visible(o.via)}` + (o.standing ? ` · also for more of the kind, ${visible(o.standing)}` : "")),
        o.reason ? el("q", {}, visible(o.reason)) : null)))) : null,
    stateOf(v) === "pending" ? el("p", { class: "hint" }, mode) : null);
}

// ---- answering

function answer(v) {
  const r = v.request;
  if (!v.may) return el("footer", { class: "answer no" }, el("p", {}, visible(v.mayNot || "You may not answer this one.")));
  const draft = drafts.get(r.id) ?? {};
  const note = el("input", { id: "reason", name: "reason", maxlength: "300", autocomplete: "off", placeholder: "Reason (optional, on record)", "aria-label": "Reason, optional, goes on record" });
  note.value = draft.reason ?? "";
  note.addEventListener("input", () => drafts.set(r.id, { ...drafts.get(r.id), reason: note.value }));
  let standing = null;
  const most = (r.standing ?? 0) / 1e9;
  if (most > 0) {
    const choices = [300, 900, 1800, 3600, 14400, 28800].filter((s) => s < most).concat(most);
    standing = el("select", { id: "standing", "aria-label": "How long a yes stands" }, el("option", { value: "" }, "Yes to this once"),
      choices.map((s) => el("option", { value: s + "s" }, `Yes to more of this kind, for ${span(s)}`)));
    standing.value = draft.standing ?? "";
    standing.addEventListener("change", () => drafts.set(r.id, { ...drafts.get(r.id), standing: standing.value }));
  }
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const approve = el("button", { class: "button approve", type: "button", id: "approve" }, "Approve");
  const deny = el("button", { class: "button deny", type: "button", id: "deny" }, "Deny");
  const give = async (verdict) => {
    approve.disabled = deny.disabled = true;
    problem.hidden = true;
    const body = { verdict, digest: r.digest, reason: note.value };
    if (verdict === "approve" && standing?.value) body.standing = standing.value;
    try {
      take(await ask(`/v1/approvals/${encodeURIComponent(r.id)}/votes`, "POST", body));
      drafts.delete(r.id);
      $("announce").textContent = verdict === "approve" ? "You approved it." : "You denied it.";
      draw();
      $("detail").focus({ preventScroll: true });
      scrollTo(0, 0);
    } catch (err) {
      if (!me) return;
      approve.disabled = deny.disabled = false;
      problem.textContent = err.message;
      problem.hidden = false;
      if ([404, 409, 410].includes(err.status)) reload().catch(() => {});
    }
  };
  approve.addEventListener("click", () => give("approve"));
  deny.addEventListener("click", () => give("deny"));
  return el("footer", { class: "answer", "aria-label": "Your answer" }, problem,
    el("div", { class: "answer-what" }, note, standing), el("div", { class: "answer-do" }, deny, approve));
}

// ---- time

function tick() {
  let ended = false;
  for (const node of document.querySelectorAll("[data-left]")) {
    const v = views.get(node.dataset.left);
    if (!v) continue;
    const s = left(v);
    if (s <= 0) ended = true;
    const text = clock(s);
    if (node.textContent !== text) node.textContent = text;
    node.classList.toggle("soon", s < 60);
  }
  for (const node of document.querySelectorAll("[data-fuse]")) {
    const v = views.get(node.dataset.fuse);
    if (!v) continue;
    const whole = (new Date(v.request.expires) - new Date(v.request.created)) / 1000;
    node.style.transform = `scaleX(${Math.min(1, Math.max(0, left(v) / whole))})`;
  }
  return ended;
}

setInterval(() => { if (tick()) draw(); }, 500);

// ---- keys and places

document.addEventListener("keydown", (e) => {
  if (e.altKey || e.ctrlKey || e.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) return;
  const rows = [...document.querySelectorAll(".row")];
  const at = rows.indexOf(document.activeElement);
  const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[e.key];
  if (step && (at >= 0 || e.key === "j" || e.key === "k")) {
    e.preventDefault();
    rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))]?.focus();
  } else if (e.key === "Escape" && $("desk").classList.contains("one") && !wide.matches) back();
});

addEventListener("popstate", route);

function route() {
  const id = location.pathname.match(/^\/approvals\/([a-z0-9-]+)$/)?.[1];
  if (id) select(id, true);
  else $("desk").classList.remove("one");
}

$("home").addEventListener("click", (e) => { if (plainClick(e) && me) { e.preventDefault(); back(); } });
$("logout").addEventListener("click", () => ask("/logout", "POST").catch(() => {}).finally(loggedOut));

async function start() {
  try {
    me = await ask("/v1/whoami");
  } catch (err) {
    if (err.status !== 401) setTimeout(start, 3000);
    return;
  }
  $("desk").hidden = $("me").hidden = $("live").hidden = false;
  $("logout").hidden = !me.csrf;
  $("me-name").textContent = visible(me.name || me.subject);
  $("me-id").textContent = visible(who(me)) + (me.admin ? " · admin" : "");
  draw();
  route();
  connect();
}

start();
