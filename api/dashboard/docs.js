// The OpenAPI document for people: operations by tag, then the schemas. All of it inserted as text.

import {el} from "./plot.js";

const at = (id) => document.getElementById(id);
const named = (reference) => reference.split("/").at(-1);

// What a schema says, as text and links to the schemas that it names.
function kind(schema) {
  if (!schema || Object.keys(schema).length === 0) return ["anything"];
  if (schema.$ref) return [el("a", named(schema.$ref), {href: `#schema-${named(schema.$ref)}`})];
  for (const word of ["anyOf", "oneOf"])
    if (schema[word]) return schema[word].flatMap((member, i) => [i ? " or " : null, ...kind(member)]);
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  if (schema.type === "array") return ["list of ", ...kind(schema.items)];
  if (schema.type === "object" && typeof schema.additionalProperties === "object")
    return ["object of ", ...kind(schema.additionalProperties)];
  return [[schema.type, schema.format].filter(Boolean).join(", ")];
}

const BOUNDS = {
  minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<", minLength: "length ≥", maxLength: "length ≤",
  minItems: "items ≥", maxItems: "items ≤", pattern: "matches",
};

function limits(schema) {
  const found = Object.entries(BOUNDS).filter(([key]) => schema[key] !== undefined).map(([key, word]) => `${word} ${schema[key]}`);
  if (schema.default !== undefined) found.push(`default ${JSON.stringify(schema.default)}`);
  return found.join(", ");
}

function table(caption, heads, rows) {
  const head = el("thead", el("tr", heads.map((text) => el("th", text, {scope: "col"}))));
  return el("div", el("table", [el("caption", caption), head, el("tbody", rows)]), {class: "scroll"});
}

function parameters(list) {
  const rows = list.map((p) => el("tr", [
    el("th", p.name + (p.required ? " *" : ""), {scope: "row"}), el("td", p.in), el("td", kind(p.schema)), el("td", limits(p.schema)), el("td", p.description || ""),
  ]));
  return table("Parameters (* required)", ["Name", "In", "Type", "Limits", "Meaning"], rows);
}

function responses(all) {
  const rows = Object.entries(all).map(([status, response]) => {
    const [media, content] = Object.entries(response.content || {})[0] || ["", null];
    return el("tr", [el("th", status, {scope: "row"}), el("td", response.description), el("td", media), el("td", content ? kind(content.schema) : "")]);
  });
  return table("Answers", ["Status", "Meaning", "Media type", "Content"], rows);
}

function operation(path, method, said) {
  const body = Object.entries(said.requestBody?.content || {});
  return el("details", [
    el("summary", [el("span", method.toUpperCase(), {class: "method"}), el("code", path), ` ${said.summary}`]),
    el("p", said.description || ""),
    said.parameters?.length ? parameters(said.parameters) : null,
    body.length ? el("p", ["Body: ", ...kind(body[0][1].schema), ` as ${body.map(([media]) => media).join(" or ")}`]) : null,
    responses(said.responses),
  ], {id: said.operationId});
}

function definition(name, schema) {
  const required = schema.required || [];
  const rows = Object.entries(schema.properties || {}).map(([key, property]) => el("tr", [
    el("th", key + (required.includes(key) ? " *" : ""), {scope: "row"}), el("td", kind(property)), el("td", limits(property)), el("td", property.description || ""),
  ]));
  return el("details", [
    el("summary", el("code", name)),
    el("p", schema.description || ""),
    rows.length ? table("Keys (* required)", ["Key", "Type", "Limits", "Meaning"], rows) : el("p", kind(schema)),
  ], {id: `schema-${name}`});
}

function reveal() {
  const target = location.hash && at(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
}

async function start() {
  const response = await fetch("/openapi.json");
  const document_ = await response.json();
  at("title").textContent = `${document_.info.title} ${document_.info.version}`;
  at("about").textContent = document_.info.summary || "";
  for (const tag of document_.tags) {
    const operations = Object.entries(document_.paths).flatMap(([path, methods]) =>
      Object.entries(methods).filter(([, said]) => said.tags.includes(tag.name)).map(([method, said]) => operation(path, method, said)));
    at("operations").append(el("h2", tag.name), el("p", tag.description, {class: "quiet"}), ...operations);
  }
  at("definitions").append(...Object.entries(document_.components.schemas).map(([name, schema]) => definition(name, schema)));
  window.addEventListener("hashchange", reveal);
  reveal();
}

start();
