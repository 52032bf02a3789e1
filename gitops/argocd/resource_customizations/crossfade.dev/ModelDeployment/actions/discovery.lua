-- What a person may order, and in which phases the operator would carry it out.

local status = obj.status or {}
local phase = status.phase or ""
for _, condition in ipairs(status.conditions or {}) do
  if condition.reason == "InvalidSpec" then
    -- Nothing is carried out until the spec can be read again.
    phase = "InvalidSpec"
  end
end
local paused = obj.spec.rollout ~= nil and obj.spec.rollout.paused == true

local rejected, undone = false, false
for _, it in ipairs(status.rejected or {}) do
  if it.version == obj.spec.model.version then
    rejected = true
    undone = undone or it.instead ~= nil
  end
end

local on_a_step = phase == "Progressing" or phase == "Paused"
local before_promotion = phase == "Preparing" or on_a_step
-- Whether there is an earlier version, only the operator knows.
local without_canary = phase == "Healthy" or phase == "RolledBack" or phase == "Probation"
local with_two_versions = before_promotion or phase == "Promoting" or phase == "Probation"

return {
  ["promote"] = {
    ["disabled"] = paused or not on_a_step,
    ["displayName"] = "Promote: pass this step",
    ["iconClass"] = "fa fa-fw fa-step-forward",
  },
  ["promote-full"] = {
    ["disabled"] = paused or not on_a_step,
    ["displayName"] = "Promote: pass all steps",
    ["iconClass"] = "fa fa-fw fa-fast-forward",
  },
  ["abort"] = {
    ["disabled"] = not with_two_versions,
    ["displayName"] = "Abort: take the new version back",
    ["iconClass"] = "fa fa-fw fa-undo",
  },
  ["pause"] = {
    ["disabled"] = paused or not before_promotion,
    ["displayName"] = "Pause: hold the weight",
    ["iconClass"] = "fa fa-fw fa-pause-circle",
  },
  ["resume"] = {
    ["disabled"] = not paused,
    ["displayName"] = "Resume",
    ["iconClass"] = "fa fa-fw fa-play-circle",
  },
  ["retry"] = {
    ["disabled"] = phase == "InvalidSpec" or not undone and (phase ~= "RolledBack" or not rejected),
    ["displayName"] = "Retry: roll the rejected version out again",
    ["iconClass"] = "fa fa-fw fa-redo",
  },
  ["undo"] = {
    ["disabled"] = not without_canary,
    ["displayName"] = "Undo: go back to the version before",
    ["iconClass"] = "fa fa-fw fa-history",
  },
}
