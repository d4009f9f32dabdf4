#!lua name=wayfare_location_feeds
-- Holds the atomic step that makes the newest feed of a tenant the one that all processes answer with. KEYS[1] is
-- "loc:{f:<tenant>}:feed:<kind>", a hash of stamp (seconds), digest and body; forgotten an hour after the last one.

local HOUR_SECONDS = 3600

local function now_s()
  return tonumber(redis.call('TIME')[1])
end

-- Returns {stamp or 0, body or '', now in seconds}.
local function newest_feed(keys, args)
  local kept = redis.call('HMGET', keys[1], 'stamp', 'body')
  return {tonumber(kept[1] or '0'), kept[2] or '', now_s()}
end

-- args: stamp, digest of what is in the feed, body, for how many seconds a feed that says the same is kept. Keeps the body unless a
-- newer or equal one is there, or one that says the same and is not old. Returns {stamp, body} of what is kept.
local function offer_feed(keys, args)
  local kept = redis.call('HMGET', keys[1], 'stamp', 'digest', 'body')
  local stamp, offered = tonumber(kept[1] or '0'), tonumber(args[1])
  local same = kept[2] == args[2] and offered - stamp < tonumber(args[4])
  if kept[3] and (stamp >= offered or same) then return {stamp, kept[3]} end
  redis.call('HSET', keys[1], 'stamp', args[1], 'digest', args[2], 'body', args[3])
  redis.call('EXPIRE', keys[1], HOUR_SECONDS)
  return {offered, args[3]}
end

redis.register_function{function_name='loc_newest_feed', callback=newest_feed, flags={'no-writes'}}
redis.register_function('loc_offer_feed', offer_feed)
