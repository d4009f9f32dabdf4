#!lua name=wayfare_location
-- Holds the atomic steps of LocationService in Valkey. KEYS[1] is always <prefix>updates, where the prefix
-- "loc:{<bucket>}:" puts everything of one bucket into one slot; the other keys are made from it here:
--   <prefix>updates          stream   ticks: fields <kind><trip id>, values TripUpdate bytes; capped. Kinds: p position,
--                                     s status, b boarding; x the trip is over, r followers must come again
--   <prefix>driver:<id>      hash     session, seq, capture, received, vehicle, trip, tenant; 24 h
--   <prefix>live:<id>        string   newest TripUpdate.position of a driver; 30 s
--   <prefix>presence         zset     driver ids by the time they were heard of last
--   <prefix>trip:<id>        hash     epoch, version, driver, status, statuspb, boardingpb, tracked; 24 h
--   <prefix>events:<id>      list     TripUpdate bytes that may not be conflated, newest last; capped; 24 h

local DAY_SECONDS = 86400
local EVENTS_KEPT = 1000

local function prefix_of(keys)
  return string.sub(keys[1], 1, -8)
end

-- A TripUpdate begins with field 1, resume_token: tag 0x0a, length 16, then epoch and version in hexadecimal.
-- The rest of the message follows as the server encoded it, since protobuf fields may be put together.
local function with_token(epoch, version, payload)
  return '\10\16' .. epoch .. string.format('%08x', version) .. payload
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

-- args: now_ms, driver, vehicle, trip or '', tenant, resume_seq or '', new_epoch
-- Returns {session, seq, capture, live position or '', status}. The session fences off older ones.
local function open_session(keys, args)
  local prefix = prefix_of(keys)
  local now, driver, vehicle, trip, tenant = args[1], args[2], args[3], args[4], args[5]
  local driver_key = prefix .. 'driver:' .. driver
  local state = redis.call('HMGET', driver_key, 'session', 'seq', 'capture')
  -- From the clock, so that it grows even after this state was lost.
  local session = math.max(tonumber(state[1] or '0') + 1, tonumber(now))
  local seq = '0'
  if args[6] ~= '' then
    seq = state[2] or args[6]
  end
  local session_text = string.format('%.0f', session)
  redis.call('HSET', driver_key, 'session', session_text, 'seq', seq, 'vehicle', vehicle,
    'trip', trip, 'tenant', tenant)
  redis.call('EXPIRE', driver_key, DAY_SECONDS)
  local status = ''
  if trip ~= '' then
    ensure_trip(prefix .. 'trip:' .. trip, args[7], driver)
    status = redis.call('HGET', prefix .. 'trip:' .. trip, 'status') or ''
  end
  local live = redis.call('GET', prefix .. 'live:' .. driver) or ''
  return {session_text, seq, state[3] or '0', live, status}
end

-- args: now_ms, driver, vehicle, trip or '', tenant, new_epoch
-- Makes sure that a driver who reports without a stream is known; an open session stays as it is.
-- Returns as open_session.
local function join_session(keys, args)
  local prefix = prefix_of(keys)
  local driver, trip = args[2], args[4]
  local driver_key = prefix .. 'driver:' .. driver
  local state = redis.call('HMGET', driver_key, 'session', 'seq', 'capture')
  if not state[1] then
    redis.call('HSET', driver_key, 'session', args[1], 'seq', '0')
  end
  -- A report without a trip says nothing of the trip that an open stream drives.
  if trip ~= '' or not state[1] then
    redis.call('HSET', driver_key, 'vehicle', args[3], 'trip', trip, 'tenant', args[5])
  end
  redis.call('EXPIRE', driver_key, DAY_SECONDS)
  local status = ''
  if trip ~= '' then
    ensure_trip(prefix .. 'trip:' .. trip, args[6], driver)
    status = redis.call('HGET', prefix .. 'trip:' .. trip, 'status') or ''
  end
  local live = redis.call('GET', prefix .. 'live:' .. driver) or ''
  return {state[1] or args[1], state[2] or '0', state[3] or '0', live, status}
end

local function write_event(prefix, trip, status, kind, payload, now)
  local trip_key = prefix .. 'trip:' .. trip
  if kind == 's' then
    redis.call('HSET', trip_key, 'status', status, 'statuspb', payload)
  elseif kind == 'b' then
    redis.call('HSET', trip_key, 'boardingpb', payload)
  end
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

-- Decides one update and writes it. Returns its verdict, and the update for followers or nil:
--   A accepted, D taken before, O not newer than the driver's last, S superseded by a newer session,
--   M state is missing (open the session again), N the trip is over, R another driver has the trip now.
local function apply_one(prefix, now, live_ms, driver, session, seq, capture, kind, trip, status, payload)
  local driver_key = prefix .. 'driver:' .. driver
  local state = redis.call('HMGET', driver_key, 'session', 'seq', 'capture')
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
    return 'A', write_event(prefix, trip, status, kind, payload, now)
  end
  if tonumber(capture) <= tonumber(state[3] or '0') then
    redis.call('HSET', driver_key, 'seq', seq)
    return 'O'
  end
  redis.call('HSET', driver_key, 'seq', seq, 'capture', capture, 'received', now)
  redis.call('SET', prefix .. 'live:' .. driver, payload, 'PX', live_ms)
  redis.call('ZADD', prefix .. 'presence', now, driver)
  if not epoch then return 'A' end
  local version = redis.call('HINCRBY', prefix .. 'trip:' .. trip, 'version', 1)
  return 'A', with_token(epoch, version, payload)
end

-- args: now_ms, live_ms, updates_kept, then per update: driver, session or '', seq, capture_ms, kind (p, s, b),
-- trip or '', status, payload. Returns one letter per update, see apply_one.
local function apply(keys, args)
  local prefix = prefix_of(keys)
  local now, live_ms = args[1], args[2]
  local verdicts, fields = {}, {}
  for i = 4, #args, 8 do
    local verdict, update = apply_one(prefix, now, live_ms, args[i], args[i + 1], args[i + 2],
      args[i + 3], args[i + 4], args[i + 5], args[i + 6], args[i + 7])
    verdicts[#verdicts + 1] = verdict
    if update then
      fields[#fields + 1] = args[i + 4] .. args[i + 5]
      fields[#fields + 1] = update
    end
  end
  if #fields > 0 then
    redis.call('XADD', keys[1], 'MAXLEN', '~', args[3], '*', unpack(fields))
  end
  return table.concat(verdicts)
end

-- args: trip, new_epoch, driver, then status, statuspb, boardingpb of another bucket or ''.
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
  return epoch
end

-- args: trip. Forgets a trip that went to a driver of another bucket; its followers come again.
local function move_away(keys, args)
  redis.call('DEL', prefix_of(keys) .. 'trip:' .. args[1])
  redis.call('XADD', keys[1], 'MAXLEN', '~', 4000, '*', 'r' .. args[1], '')
  return 'OK'
end

-- args: trip. Marks the trip as over and tells its followers' servers.
local function untrack(keys, args)
  local trip_key = prefix_of(keys) .. 'trip:' .. args[1]
  redis.call('HSET', trip_key, 'tracked', '0')
  redis.call('EXPIRE', trip_key, DAY_SECONDS)
  redis.call('XADD', keys[1], 'MAXLEN', '~', 4000, '*', 'x' .. args[1], '')
  return 'OK'
end

-- args: driver. Returns {capture_ms, received_ms, vehicle, trip, tenant, live position or '', capture}.
local function driver_state(keys, args)
  local prefix = prefix_of(keys)
  local state = redis.call('HMGET', prefix .. 'driver:' .. args[1],
    'capture', 'received', 'vehicle', 'trip', 'tenant')
  for i = 1, 5 do
    state[i] = state[i] or ''
  end
  state[6] = redis.call('GET', prefix .. 'live:' .. args[1]) or ''
  return state
end

-- args: trip, driver, events wanted (1 or 0).
-- Returns {epoch, version, status, statuspb, boardingpb, tracked, live position of the trip or '', {events}}.
local function snapshot(keys, args)
  local prefix = prefix_of(keys)
  local state = redis.call('HMGET', prefix .. 'trip:' .. args[1],
    'epoch', 'version', 'status', 'statuspb', 'boardingpb', 'tracked')
  for i = 1, 6 do
    state[i] = state[i] or ''
  end
  state[7] = ''
  if redis.call('HGET', prefix .. 'driver:' .. args[2], 'trip') == args[1] then
    state[7] = redis.call('GET', prefix .. 'live:' .. args[2]) or ''
  end
  state[8] = {}
  if args[3] == '1' then
    state[8] = redis.call('LRANGE', prefix .. 'events:' .. args[1], 0, -1)
  end
  return state
end

-- args: now_ms, driver, online (1 or 0). Returns OK.
local function set_presence(keys, args)
  local prefix = prefix_of(keys)
  if args[3] == '1' then
    redis.call('ZADD', prefix .. 'presence', args[1], args[2])
  else
    redis.call('ZREM', prefix .. 'presence', args[2])
    redis.call('DEL', prefix .. 'live:' .. args[2])
  end
  return 'OK'
end

-- args: oldest_ms. Returns how many drivers are online; forgets those that were not heard of since.
local function count_online(keys, args)
  local key = prefix_of(keys) .. 'presence'
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. args[1])
  return redis.call('ZCARD', key)
end

-- args: trip id, now_ms, until_ms, most. Returns 1, or 0 when the user follows too many.
-- KEYS[1] is "loc:{u:<user>}:follows", alone in its slot.
local function follow(keys, args)
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', args[2])
  if not redis.call('ZSCORE', keys[1], args[1])
    and redis.call('ZCARD', keys[1]) >= tonumber(args[4]) then
    return 0
  end
  redis.call('ZADD', keys[1], 'GT', args[3], args[1])
  redis.call('PEXPIREAT', keys[1], args[3])
  return 1
end

redis.register_function('loc_open_session', open_session)
redis.register_function('loc_join_session', join_session)
redis.register_function('loc_apply', apply)
redis.register_function('loc_track', track)
redis.register_function('loc_move_away', move_away)
redis.register_function('loc_untrack', untrack)
redis.register_function('loc_driver_state', driver_state)
redis.register_function('loc_snapshot', snapshot)
redis.register_function('loc_set_presence', set_presence)
redis.register_function('loc_count_online', count_online)
redis.register_function('loc_follow', follow)
