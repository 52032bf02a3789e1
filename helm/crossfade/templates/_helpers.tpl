{{- define "crossfade.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator
{{- end }}

{{- define "crossfade.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{- define "crossfade.labels" -}}
app.kubernetes.io/name: crossfade
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Never more than this: a Deployment's selector cannot be changed. So one release a namespace. */}}
{{- define "crossfade.selector" -}}
app.kubernetes.io/name: crossfade
{{- end }}

{{- /* What the operator may do in the namespaces that it watches: no wildcard, and no verb that it
       does not use. Server-side apply is a patch, and asks for create where nothing is yet. */}}
{{- define "crossfade.rules" -}}
# Patches finalizers and the command annotation; never the spec.
- apiGroups: [crossfade.dev]
  resources: [modeldeployments]
  verbs: [list, watch, patch]
- apiGroups: [crossfade.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
# Owner references that block deletion ask for it (OwnerReferencesPermissionEnforcement).
- apiGroups: [crossfade.dev]
  resources: [modeldeployments/finalizers]
  verbs: [update]
# The children of a version.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch, create, patch, delete]
# What ran: the history of versions, to which undo goes back.
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Routes: its own are applied, joined ones are updated; none is deleted, but by its owner's end.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [list, watch, create, patch, update]
- apiGroups: [networking.istio.io]
  resources: [virtualservices]
  verbs: [list, watch, create, patch]
{{- with .Values.rbac.secretNames }}
# Credentials for Prometheus, and what webhooks need, by these names and no others.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson . }}
  verbs: [get]
{{- end }}
# Distributions to compare with, by the name that a ModelDeployment gives.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
