-- A ModelDeployment is healthy when the version that Git asks for serves. It is Degraded when that
-- will not happen until somebody changes something, and Suspended when it waits for a person's word.

local status = obj.status
if status == nil then
  return {status = "Progressing", message = "waits for the operator"}
end

-- Only what speaks of the present spec counts.
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.observedGeneration == obj.metadata.generation then
    conditions[condition.type] = condition
  end
end
local ready = conditions.Ready or {}
local progressing = conditions.Progressing or {}
local route = conditions.RouteAccepted or {}

if ready.reason == "InvalidSpec" then
  return {status = "Degraded", message = ready.message}
end
if progressing.reason == "WriteFailed" then
  return {status = "Degraded", message = progressing.message}
end
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "waits for the operator"}
end
if ready.reason == "StableNotReady" then
  return {status = "Degraded", message = ready.message}
end

local phase = status.phase
local rollout = status.rollout or {}
local canary = status.canary or {}
local asked = obj.spec.model.version
local stable = (status.stable or {}).version
local message = status.message or ""

local function is_rejected(revision)
  for _, rejected in ipairs(status.rejected or {}) do
    if rejected.revision == revision then
      return true
    end
  end
  return false
end

local function is_version_rejected(version)
  for _, rejected in ipairs(status.rejected or {}) do
    if rejected.version == version then
      return true
    end
  end
  return false
end

-- Another version is rolled out in its place, by the order undo.
local function is_undone(version)
  for _, rejected in ipairs(status.rejected or {}) do
    if rejected.version == version and rejected.instead ~= nil then
      return true
    end
  end
  return false
end

local function does_harm()
  for _, metric in ipairs(status.metrics or {}) do
    if metric.verdict == "harm" then
      return true
    end
  end
  return false
end

-- A deadline that is over holds a step until a person passes it or takes the version back.
local function is_held_by_deadline()
  local passed = rollout.promotedStep ~= nil and rollout.promotedStep >= rollout.step
  return phase == "Progressing" and rollout.deadlinePassed and not passed
end

if phase == "RolledBack" and is_version_rejected(asked) then
  return {
    status = "Degraded",
    message = message .. " (the action retry does that); version " .. stable .. " serves",
  }
end
if phase == "RollingBack" and canary.version == asked and is_rejected(canary.revision) then
  return {
    status = "Degraded",
    message = "version " .. canary.version .. " is being taken back: " .. message,
  }
end
if phase == "Probation" and is_undone(asked) and stable ~= asked then
  return {
    status = "Degraded",
    message = "version " .. asked .. ", which is asked for, was undone: " .. message,
  }
end
if phase == "Probation" and does_harm() then
  return {status = "Degraded", message = message}
end

-- While the gateway has not taken the newest weights over, a newer version may be about to start.
if phase == "Healthy" or phase == "Probation" then
  if route.status ~= "True" then
    return {status = "Progressing", message = message ~= "" and message or route.message}
  end
  if stable ~= asked then
    return {status = "Progressing", message = "version " .. asked .. " comes next: " .. message}
  end
  return {status = "Healthy", message = message ~= "" and message or ready.message}
end

if (status.weight or 0) > 0 then
  message = "version " .. canary.version .. " has " .. status.weight
    .. " % of the requests (step " .. status.step .. "): " .. message
end
local paused = obj.spec.rollout ~= nil and obj.spec.rollout.paused
local waits_for_person = (phase == "Paused" and rollout.pausedSince ~= nil)
  or (phase == "Preparing" and paused)
  or is_held_by_deadline()
if waits_for_person then
  return {status = "Suspended", message = message}
end
return {status = "Progressing", message = message}
