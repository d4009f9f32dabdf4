#!lua name=wayfare_location
-- Holds the atomic steps of LocationService in Valkey that write. KEYS[1] is always <prefix>updates, where the prefix
-- "loc:{<bucket>}:" puts everything of one bucket into one slot; the other keys are made from it here:
--   <prefix>updates            stream   ticks: fields <kind><trip id>, values TripUpdate bytes; capped. Kinds: p position,
--                                       e ETA, s status, b boarding, g stop progress; x the trip is over, r come again
--   <prefix>driver:<id>        hash     session, seq, capture, received, payload (newest TripUpdate.position), vehicle,
--                                       class, trip, tenant, fences, fencesv; 24 h
--   <prefix>trip:<id>          hash     epoch, version, driver, status, statuspb, boardingpb, etapb, tracked, watch,
--                                       watchv; 24 h
--   <prefix>events:<id>        list     TripUpdate bytes that may not be conflated, newest last; capped; 24 h
--   <prefix>tenants            set      tenants that have a presence set
--   <prefix>presence:<tenant>  zset     driver ids by when they were heard of last, ms of this server's clock
--   <prefix>nearby:<tenant>:<class>  geo set of free drivers
--   <prefix>outbox             list     what must reach others, oldest first: see push below; capped
--   <prefix>presencev          hash     driver id -> how often the driver came and went
-- views.lua holds the steps that read.

local DAY_SECONDS = 86400
local HOUR_SECONDS = 3600
local EVENTS_KEPT = 1000
local OUTBOX_KEPT = 50000

local function prefix_of(keys)
  return string.sub(keys[1], 1, -8)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A TripUpdate begins with field 1, resume_token: tag 0x0a, length 16, then epoch and version in hexadecimal.
-- The rest of the message follows as the server encoded it, since protobuf fields may be put together.
local function with_token(epoch, version, payload)
  return '\10\16' .. epoch .. string.format('%08x', version) .. payload
end

local function push(prefix, entry)
  if redis.call('RPUSH', prefix .. 'outbox', entry) > OUTBOX_KEPT then
    redis.call('LPOP', prefix .. 'outbox')
  end
end

-- Entries: '+' or '-' (came, went silent) or '!' (said goodbye), tenant (36), driver (36), count, then the time, the vehicle and its class,
-- by spaces; the count numbers the entries of a driver from 1.
local function push_presence(prefix, kind, tenant, driver, time)
  local count = redis.call('HINCRBY', prefix .. 'presencev', driver, 1)
  local state = redis.call('HMGET', prefix .. 'driver:' .. driver, 'vehicle', 'class')
  push(prefix, kind .. tenant .. driver .. string.format('%d %.0f ', count, time)
    .. (state[1] or '') .. ' ' .. (state[2] or ''))
end

local function heard_of(prefix, tenant, driver, now)
  if redis.call('ZADD', prefix .. 'presence:' .. tenant, now, driver) == 1 then
    redis.call('SADD', prefix .. 'tenants', tenant)
    push_presence(prefix, '+', tenant, driver, now)
  end
end

local function not_free(prefix, tenant, class, driver)
  redis.call('ZREM', prefix .. 'nearby:' .. tenant .. ':' .. (class or ''), driver)
end

local function gone(prefix, tenant, driver, kind, time)
  if redis.call('ZREM', prefix .. 'presence:' .. tenant, driver) == 1 then
    not_free(prefix, tenant, redis.call('HGET', prefix .. 'driver:' .. driver, 'class'), driver)
    push_presence(prefix, kind, tenant, driver, time)
  end
end

local function ensure_trip(trip_key, new_epoch, driver)
  local epoch = redis.call('HGET', trip_key, 'epoch')
  if not epoch then
    epoch = new_epoch
    redis.call('HSET', trip_key, 'epoch', epoch, 'version', '0', 'tracked', '1')
  end
  redis.call('HSET', trip_key, 'driver', driver)
  redis.call('EXPIRE', trip_key, DAY_SECONDS)
  return epoch
end

-- Says who a driver is now. A driver who changes tenant, class, or begins a trip leaves the place where passengers found
-- the driver before.
local function introduce(prefix, driver, vehicle, class, trip, tenant)
  local driver_key = prefix .. 'driver:' .. driver
  local before = redis.call('HMGET', driver_key, 'tenant', 'class')
  if class == '' then class = before[2] or '' end
  if before[1] and (trip ~= '' or before[1] ~= tenant or before[2] ~= class) then
    not_free(prefix, before[1], before[2], driver)
  end
  if before[1] and before[1] ~= tenant then
    gone(prefix, before[1], driver, '!', now_ms())
  end
  redis.call('HSET', driver_key, 'vehicle', vehicle, 'class', class, 'trip', trip, 'tenant', tenant)
end

local function grant_of(prefix, session, seq, capture, payload, trip)
  local status, watch = '', {}
  if trip ~= '' then
    status = redis.call('HGET', prefix .. 'trip:' .. trip, 'status') or ''
  end
  return {session, seq, capture or '0', payload or '', status}
end

-- args: driver, vehicle, trip or '', tenant, resume_seq or '', new_epoch, class or ''
-- Returns {session, seq, capture, newest position or '', status}. The session fences off older ones.
local function open_session(keys, args)
  local prefix = prefix_of(keys)
  local driver, vehicle, trip, tenant = args[1], args[2], args[3], args[4]
  local driver_key = prefix .. 'driver:' .. driver
  local state = redis.call('HMGET', driver_key, 'session', 'seq', 'capture', 'payload')
  -- From the clock, so that it grows even after this state was lost.
  local session = string.format('%.0f', math.max(tonumber(state[1] or '0') + 1, now_ms()))
  local seq = '0'
  if args[5] ~= '' then
    seq = state[2] or args[5]
  end
  introduce(prefix, driver, vehicle, args[7], trip, tenant)
  redis.call('HSET', driver_key, 'session', session, 'seq', seq)
  redis.call('EXPIRE', driver_key, DAY_SECONDS)
  if trip ~= '' then
    ensure_trip(prefix .. 'trip:' .. trip, args[6], driver)
  end
  return grant_of(prefix, session, seq, state[3], state[4], trip)
end

-- args: driver, vehicle, trip or '', tenant, new_epoch, class or ''
-- Makes sure that a driver who reports without a stream is known; an open session stays as it is.
-- Returns as open_session.
local function join_session(keys, args)
  local prefix = prefix_of(keys)
  local driver, trip = args[1], args[3]
  local driver_key = prefix .. 'driver:' .. driver
  local state = redis.call('HMGET', driver_key, 'session', 'seq', 'capture', 'payload')
  local session = state[1] or string.format('%.0f', now_ms())
  if not state[1] then
    redis.call('HSET', driver_key, 'session', session, 'seq', '0')
  end
  -- A report without a trip says nothing of the trip that an open stream drives.
  if trip ~= '' or not state[1] then
    introduce(prefix, driver, args[2], args[6], trip, args[4])
  end
  redis.call('EXPIRE', driver_key, DAY_SECONDS)
  if trip ~= '' then
    ensure_trip(prefix .. 'trip:' .. trip, args[5], driver)
  end
  return grant_of(prefix, session, state[2] or '0', state[3], state[4], trip)
end

local function write_event(prefix, trip, payload)
  local trip_key = prefix .. 'trip:' .. trip
  local epoch = redis.call('HGET', trip_key, 'epoch')
  local version = redis.call('HINCRBY', trip_key, 'version', 1)
  local update = with_token(epoch, version, payload)
  local events_key = prefix .. 'events:' .. trip
  redis.call('RPUSH', events_key, update)
  redis.call('LTRIM', events_key, -EVENTS_KEPT, -1)
  redis.call('EXPIRE', events_key, DAY_SECONDS)
  redis.call('EXPIRE', trip_key, DAY_SECONDS)
  return update
end

-- Writes a status or boarding. The detail of a status is the status, and for an emergency a space and the length of the alert
-- with which the payload begins: followers of alerts are told in the same step.
local function write_report(prefix, trip, tenant, kind, detail, payload)
  local trip_key = prefix .. 'trip:' .. trip
  if kind == 'b' then
    redis.call('HSET', trip_key, 'boardingpb', payload)
    return write_event(prefix, trip, payload)
  end
  local status, alert_bytes = string.match(detail, '^(%u+) ?(%d*)$')
  if alert_bytes ~= '' then
    push(prefix, 'a' .. tenant .. string.sub(payload, 1, tonumber(alert_bytes)))
    payload = string.sub(payload, tonumber(alert_bytes) + 1)
  end
  redis.call('HSET', trip_key, 'status', status, 'statuspb', payload)
  return write_event(prefix, trip, payload)
end

-- Decides one update and writes it. Returns its verdict, and the update for followers or nil:
--   A accepted, D taken before, O not newer than the driver's last, S superseded by a newer session,
--   M state is missing (open the session again), N the trip is over, R another driver has the trip now.
local function apply_one(prefix, now, driver, session, seq, capture, kind, trip, detail, payload)
  local driver_key = prefix .. 'driver:' .. driver
  local state = redis.call('HMGET', driver_key, 'session', 'seq', 'capture', 'tenant', 'trip', 'class')
  if not state[1] then return 'M' end
  if session ~= '' then
    if state[1] ~= session then return 'S' end
    if tonumber(seq) <= tonumber(state[2]) then return 'D' end
  else
    seq = state[2]
  end
  local epoch = nil
  if trip ~= '' then
    local trip_state = redis.call('HMGET', prefix .. 'trip:' .. trip, 'epoch', 'status', 'tracked', 'driver')
    epoch = trip_state[1]
    if not epoch then return 'M' end
    if trip_state[4] ~= driver then return 'R' end
    if trip_state[2] == 'ENDED' or trip_state[3] == '0' then
      redis.call('HSET', driver_key, 'seq', seq)
      return 'N'
    end
  end
  if kind ~= 'p' then
    redis.call('HSET', driver_key, 'seq', seq)
    return 'A', write_report(prefix, trip, state[4], kind, detail, payload)
  end
  if tonumber(capture) <= tonumber(state[3] or '0') then
    redis.call('HSET', driver_key, 'seq', seq)
    return 'O'
  end
  redis.call('HSET', driver_key, 'seq', seq, 'capture', capture, 'received', now, 'payload', payload)
  heard_of(prefix, state[4], driver, now)
  if epoch then
    return 'A', with_token(epoch, redis.call('HINCRBY', prefix .. 'trip:' .. trip, 'version', 1), payload)
  end
  if state[5] == '' then
    local longitude, latitude = string.match(detail, '^(%S+) (%S+)$')
    -- Web Mercator's limit, as Valkey's; nobody drives beyond it.
    if longitude and math.abs(tonumber(latitude)) < 85.05 then
      redis.call('GEOADD', prefix .. 'nearby:' .. state[4] .. ':' .. state[6], longitude, latitude, driver)
    end
  end
  return 'A'
end

-- args: updates_kept, then per update: driver, session or '', seq, capture_ms, kind (p, s, b), trip or '',
-- detail (of a status, see write_report; of a position without a trip its longitude and latitude), payload.
-- Returns one letter per update, see apply_one.
local function apply(keys, args)
  local prefix = prefix_of(keys)
  local now = now_ms()
  local verdicts, fields = {}, {}
  for i = 2, #args, 8 do
    local verdict, update = apply_one(prefix, now, args[i], args[i + 1], args[i + 2],
      args[i + 3], args[i + 4], args[i + 5], args[i + 6], args[i + 7])
    verdicts[#verdicts + 1] = verdict
    if update then
      fields[#fields + 1] = args[i + 4] .. args[i + 5]
      fields[#fields + 1] = update
    end
  end
  if #fields > 0 then
    redis.call('XADD', keys[1], 'MAXLEN', '~', args[1], '*', unpack(fields))
  end
  return table.concat(verdicts)
end

-- args: trip or '', driver, version of the state that was read, new state, then kind and payload of what followers are
-- told: g stop progress and e ETA (of a trip), a alert (of the tenant). What one process knows of stops and geofences
-- is written only if no other process wrote since. Returns {} or, when one did, {version, state}.
local function watch(keys, args)
  local prefix = prefix_of(keys)
  local trip, driver = args[1], args[2]
  local key, field = prefix .. 'driver:' .. driver, 'fences'
  if trip ~= '' then key, field = prefix .. 'trip:' .. trip, 'watch' end
  local kept = redis.call('HMGET', key, field .. 'v', field)
  if (kept[1] or '0') ~= args[3] then return {kept[1] or '0', kept[2] or ''} end
  local tenant = redis.call('HGET', prefix .. 'driver:' .. driver, 'tenant')
  if not tenant or redis.call('EXISTS', key) == 0 then return {'0', ''} end
  redis.call('HSET', key, field, args[4], field .. 'v', args[3] + 1)
  local fields = {}
  for i = 5, #args, 2 do
    local kind, payload = args[i], args[i + 1]
    if kind == 'a' then
      push(prefix, 'a' .. tenant .. payload)
    elseif trip ~= '' then
      fields[#fields + 1] = kind .. trip
      if kind == 'e' then
        redis.call('HSET', key, 'etapb', payload)
        fields[#fields + 1] = with_token(redis.call('HGET', key, 'epoch'),
          redis.call('HINCRBY', key, 'version', 1), payload)
      else
        fields[#fields + 1] = write_event(prefix, trip, payload)
      end
    end
  end
  if #fields > 0 then
    redis.call('XADD', keys[1], 'MAXLEN', '~', 4000, '*', unpack(fields))
  end
  return {}
end

-- args: trip or '', driver. Returns {version, state} as watch keeps them.
local function watched(keys, args)
  local prefix = prefix_of(keys)
  local key, field = prefix .. 'driver:' .. args[2], 'fences'
  if args[1] ~= '' then key, field = prefix .. 'trip:' .. args[1], 'watch' end
  local kept = redis.call('HMGET', key, field .. 'v', field)
  return {kept[1] or '0', kept[2] or ''}
end

-- args: trip, new_epoch, driver, then status, statuspb, boardingpb, watch, watchv of another bucket or ''.
-- Makes the trip's state where it is missing, and names its driver.
local function track(keys, args)
  local trip_key = prefix_of(keys) .. 'trip:' .. args[1]
  local is_new = redis.call('EXISTS', trip_key) == 0
  local epoch = ensure_trip(trip_key, args[2], args[3])
  if is_new and args[4] ~= '' then
    redis.call('HSET', trip_key, 'status', args[4], 'statuspb', args[5])
  end
  if is_new and args[6] ~= '' then
    redis.call('HSET', trip_key, 'boardingpb', args[6])
  end
  if is_new and args[7] ~= '' then
    redis.call('HSET', trip_key, 'watch', args[7], 'watchv', args[8])
  end
  return epoch
end

-- args: trip. Forgets a trip that went to a driver of another bucket; its followers come again.
local function move_away(keys, args)
  redis.call('DEL', prefix_of(keys) .. 'trip:' .. args[1])
  redis.call('XADD', keys[1], 'MAXLEN', '~', 4000, '*', 'r' .. args[1], '')
  return 'OK'
end

-- args: trip. Marks the trip as over and tells its followers' servers. What is known of it lasts another hour, for those
-- who were away when it ended.
local function untrack(keys, args)
  local prefix = prefix_of(keys)
  local trip_key = prefix .. 'trip:' .. args[1]
  redis.call('HSET', trip_key, 'tracked', '0')
  redis.call('EXPIRE', trip_key, HOUR_SECONDS)
  redis.call('EXPIRE', prefix .. 'events:' .. args[1], HOUR_SECONDS)
  redis.call('XADD', keys[1], 'MAXLEN', '~', 4000, '*', 'x' .. args[1], '')
  return 'OK'
end

-- args: trip, payload. Tells a trip's followers how many are on board, if that is not what they were told last.
local function board(keys, args)
  local prefix = prefix_of(keys)
  local trip_key = prefix .. 'trip:' .. args[1]
  local state = redis.call('HMGET', trip_key, 'epoch', 'status', 'tracked', 'boardingpb')
  if not state[1] or state[2] == 'ENDED' or state[3] == '0' or state[4] == args[2] then return 'OK' end
  redis.call('HSET', trip_key, 'boardingpb', args[2])
  redis.call('XADD', keys[1], 'MAXLEN', '~', 4000, '*', 'b' .. args[1], write_event(prefix, args[1], args[2]))
  return 'OK'
end

-- args: driver, online (1 or 0), tenant, vehicle, class or ''. Returns OK.
local function set_presence(keys, args)
  local prefix = prefix_of(keys)
  local driver, tenant = args[1], args[3]
  local driver_key = prefix .. 'driver:' .. driver
  if args[2] == '0' then
    gone(prefix, tenant, driver, '!', now_ms())
    redis.call('HDEL', driver_key, 'payload')
    return 'OK'
  end
  if redis.call('HGET', driver_key, 'tenant') ~= tenant then
    introduce(prefix, driver, args[4], args[5], '', tenant)
  else
    local trip = redis.call('HGET', driver_key, 'trip') or ''
    local vehicle = trip ~= '' and redis.call('HGET', driver_key, 'vehicle') or args[4]
    introduce(prefix, driver, vehicle, args[5], trip, tenant)
  end
  redis.call('EXPIRE', driver_key, DAY_SECONDS)
  heard_of(prefix, tenant, driver, now_ms())
  return 'OK'
end

-- args: live_ms, most. Lets drivers go who were silent for longer. Returns {how many, how many are online}.
local function sweep(keys, args)
  local prefix = prefix_of(keys)
  local oldest = now_ms() - args[1]
  local swept, online = 0, 0
  for _, tenant in ipairs(redis.call('SMEMBERS', prefix .. 'tenants')) do
    local key = prefix .. 'presence:' .. tenant
    local silent = redis.call('ZRANGEBYSCORE', key, '-inf', string.format('(%.0f', oldest),
      'WITHSCORES', 'LIMIT', 0, args[2])
    for i = 1, #silent, 2 do
      gone(prefix, tenant, silent[i], '-', tonumber(silent[i + 1]))
      swept = swept + 1
    end
    local left = redis.call('ZCARD', key)
    online = online + left
    if left == 0 then redis.call('SREM', prefix .. 'tenants', tenant) end
  end
  return {swept, online}
end

-- args: trip id, now_ms, until_ms, most. Returns 1, or 0 when the user follows too many.
-- KEYS[1] is "loc:{u:<user>}:follows", alone in its slot.
local function follow(keys, args)
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', args[2])
  local is_new = not redis.call('ZSCORE', keys[1], args[1])
  if is_new and redis.call('ZCARD', keys[1]) >= tonumber(args[4]) then return 0 end
  redis.call('ZADD', keys[1], 'GT', args[3], args[1])
  redis.call('PEXPIREAT', keys[1], args[3])
  return 1
end

-- `pairs` does not exist while a library is loaded.
local steps = {
  'loc_open_session', open_session, 'loc_join_session', join_session, 'loc_apply', apply, 'loc_watch', watch,
  'loc_watched', watched, 'loc_track', track, 'loc_move_away', move_away, 'loc_untrack', untrack, 'loc_board', board,
  'loc_set_presence', set_presence, 'loc_sweep', sweep, 'loc_follow', follow,
}
for i = 1, #steps, 2 do redis.register_function(steps[i], steps[i + 1]) end
