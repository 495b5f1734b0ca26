// Validates custom resources: reads a JSON list of objects, writes a JSON list with the faults of each.
// crds.mjs FOLDER, where FOLDER/node_modules holds @kubernetes-models.
//
// Its .validate() knows required fields and types, and takes unknown fields for granted. So every field name is also looked up
// among those that the package declares: a misspelt one would be dropped by the API server without a word.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const scope = join(process.argv[2], "node_modules", "@kubernetes-models");
const packages = ["argo-rollouts", "argo-cd", "gateway-api", "prometheus-operator"];

// Below these the names are the author's own. The pod template is validated as part of the Deployment twin.
const free = new Set(["labels", "annotations", "matchLabels", "plugins", "template"]);

const metadata = ["apiVersion", "kind", "metadata", "name", "namespace", "labels", "annotations", "matchLabels"];

function declaredFields(folder) {
  const found = new Set(metadata);
  for (const file of readdirSync(folder, { recursive: true }).filter((file) => file.endsWith(".d.ts"))) {
    for (const [, name] of readFileSync(join(folder, file), "utf8").matchAll(/^\s*"?([\w-]+)"?\??:/gm)) found.add(name);
  }
  return found;
}

function unknownFields(value, known, path = "") {
  if (Array.isArray(value)) return value.flatMap((item, i) => unknownFields(item, known, `${path}[${i}]`));
  if (value === null || typeof value !== "object") return [];
  return Object.entries(value).flatMap(([name, inner]) => {
    if (!known.has(name)) return [`${path}.${name} is no field of this kind`];
    return free.has(name) ? [] : unknownFields(inner, known, `${path}.${name}`);
  });
}

const fields = new Map();

async function faults(object) {
  const at = (name) => join(scope, name, object.apiVersion, `${object.kind}.js`);
  const home = packages.find((name) => existsSync(at(name)));
  if (!home) return [`no schema for ${object.apiVersion} ${object.kind}`];
  if (!fields.has(home)) fields.set(home, declaredFields(join(scope, home, object.apiVersion)));
  const { [object.kind]: Model } = await import(pathToFileURL(at(home)));
  try {
    new Model(object).validate();
  } catch (error) {
    return [error.message];
  }
  return unknownFields(object, fields.get(home));
}

const objects = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(await Promise.all(objects.map(faults))));
