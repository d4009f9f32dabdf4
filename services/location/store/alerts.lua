#!lua name=wayfare_location_alerts
-- Holds the atomic step that keeps an alert of a tenant. KEYS[1] is "loc:{a:<tenant>}:alerts", a stream of AlertUpdate bytes without
-- a token, whose entries' ids are the tokens; capped, and forgotten a day after the last one.

local DAY_SECONDS = 86400
local ALERTS_KEPT = 1000
-- As long as a relay that was cut off may come again with the same entry.
local SEEN_SECONDS = 3600

-- args: digest of the alert, AlertUpdate bytes. A digest is taken once. Returns 1, or 0 when it was seen before.
local function raise_alert(keys, args)
  local seen = redis.call('SET', keys[1] .. ':seen:' .. args[1], '1', 'NX', 'EX', SEEN_SECONDS)
  if not seen then return 0 end
  redis.call('XADD', keys[1], 'MAXLEN', '~', ALERTS_KEPT, '*', 'alert', args[2])
  redis.call('EXPIRE', keys[1], DAY_SECONDS)
  return 1
end

-- args: digest of what is rare, for how many seconds it is not said again. Returns 1 for the first to ask, otherwise 0.
local function first_to_say(keys, args)
  return redis.call('SET', keys[1] .. ':said:' .. args[1], '1', 'NX', 'EX', args[2]) and 1 or 0
end

redis.register_function('loc_raise_alert', raise_alert)
redis.register_function('loc_first_to_say', first_to_say)
