-- Where Git writes spec.rollout.paused, change it there: a sync would undo this.
obj.spec.rollout = obj.spec.rollout or {}
obj.spec.rollout.paused = false
return obj
