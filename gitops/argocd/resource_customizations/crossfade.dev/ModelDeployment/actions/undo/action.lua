-- The operator carries the order out once and removes the annotation.
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["crossfade.dev/command"] = "undo"
return obj
