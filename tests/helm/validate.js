// Validates the custom resources on standard input, a JSON list, against the schemas of their operators.
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { readFileSync } from "node:fs";

for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const model = { ScaledObject, PodMonitor }[resource.kind];
  const { apiVersion } = new model({});
  if (apiVersion !== resource.apiVersion) throw new Error(`${resource.kind} is of ${apiVersion}`);
  new model(resource).validate();
}
