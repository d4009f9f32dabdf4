#!lua name=wayfare_location_views
-- Holds the atomic steps of LocationService in Valkey that read, and the emptying of the outbox. KEYS[1] is always
-- <prefix>updates; the keys of a bucket are listed in functions.lua.

local function prefix_of(keys)
  return string.sub(keys[1], 1, -8)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Returns the newest position of a driver, or '' when it is older than live_ms.
local function live_position(received, payload, now, live_ms)
  if payload and received and now - tonumber(received) <= tonumber(live_ms) then return payload end
  return ''
end

-- args: driver, live_ms. Returns {capture_ms, received_ms, vehicle, trip, tenant, live position or ''}.
local function driver_state(keys, args)
  local state = redis.call('HMGET', prefix_of(keys) .. 'driver:' .. args[1],
    'capture', 'received', 'vehicle', 'trip', 'tenant', 'payload')
  local position = live_position(state[2], state[6], now_ms(), args[2])
  for i = 1, 5 do
    state[i] = state[i] or ''
  end
  state[6] = position
  return state
end

-- args: trip, driver, events wanted (1 or 0), live_ms. Returns {epoch, version, status, statuspb, boardingpb, tracked,
-- live position of the trip or '', {events}, etapb, watch, watchv}.
local function snapshot(keys, args)
  local prefix = prefix_of(keys)
  local trip = redis.call('HMGET', prefix .. 'trip:' .. args[1], 'epoch', 'version', 'status', 'statuspb',
    'boardingpb', 'tracked', 'etapb', 'watch', 'watchv')
  for i = 1, 9 do
    trip[i] = trip[i] or ''
  end
  local driver = redis.call('HMGET', prefix .. 'driver:' .. args[2], 'trip', 'received', 'payload')
  local position = ''
  if driver[1] == args[1] then
    position = live_position(driver[2], driver[3], now_ms(), args[4])
  end
  local events = {}
  if args[3] == '1' then
    events = redis.call('LRANGE', prefix .. 'events:' .. args[1], 0, -1)
  end
  return {trip[1], trip[2], trip[3], trip[4], trip[5], trip[6], position, events, trip[7], trip[8], trip[9]}
end

-- Returns {driver, meters, class} of the drivers of all classes within the radius, the nearest first, and up to which distance nobody
-- is missing: of each class no more than count are looked at.
local function nearest_of_classes(prefix, args, radius, count)
  local hits, complete = {}, math.huge
  for i = 8, #args do
    local members = redis.call('GEOSEARCH', prefix .. 'nearby:' .. args[1] .. ':' .. args[i], 'FROMLONLAT', args[2], args[3],
      'BYRADIUS', radius, 'm', 'ASC', 'COUNT', count, 'WITHDIST')
    for _, member in ipairs(members) do
      hits[#hits + 1] = {member[1], tonumber(member[2]), args[i]}
    end
    if #members >= count then complete = math.min(complete, hits[#hits][2]) end
  end
  table.sort(hits, function(one, other) return one[2] < other[2] end)
  return hits, complete
end

-- Returns {driver, capture_ms, class, payload, ...} of those hits that are not too old, the nearest first, and up to which distance all
-- must be known for the `most` nearest to be among them, or nil if these are fewer. Valkey rounds to its geohash and takes the earth for
-- a larger sphere: who is up to 1.2 % and four meters farther by its measure may be nearer.
local function fresh_rows(prefix, hits, most, oldest)
  local rows, found, reach = {}, 0, nil
  for _, hit in ipairs(hits) do
    if reach and hit[2] > reach then break end
    local state = redis.call('HMGET', prefix .. 'driver:' .. hit[1], 'capture', 'payload')
    if state[1] and state[2] and tonumber(state[1]) >= oldest then
      local n = #rows
      rows[n + 1], rows[n + 2], rows[n + 3], rows[n + 4] = hit[1], state[1], hit[3], state[2]
      found = found + 1
      if found == most then reach = hit[2] * 1.012 + 4 end
    end
  end
  return rows, reach
end

-- args: tenant, longitude, latitude, radius_m, least radius_m to begin with, most drivers, oldest capture_ms, then the classes ('' is
-- one too). Returns {driver, capture_ms, class, payload, ...}, at least as many as asked for if there are; the caller measures
-- distances exactly. The radius grows to where by the density found so far there are enough, because sorting and reading all
-- drivers of a city takes long.
local function nearby(keys, args)
  local prefix, largest, most, oldest = prefix_of(keys), tonumber(args[4]), tonumber(args[6]), tonumber(args[7])
  local radius, count = math.min(tonumber(args[5]), largest), most + 16
  while true do
    local hits, complete = nearest_of_classes(prefix, args, radius, count)
    if #hits >= most or radius >= largest then
      local rows, reach = fresh_rows(prefix, hits, most, oldest)
      local all = radius >= largest and complete == math.huge
      if all or (reach and reach <= math.min(radius, complete)) then return rows end
    end
    if complete < math.huge then
      -- Too many of the nearest are too old, or at the same distance.
      count = count * 4
    else
      radius = math.min(radius * math.max(1.3, math.min(4, math.sqrt(1.3 * most / #hits))), largest)
    end
  end
end

-- args: tenant, heard of since (ms of this server's clock), live_ms, most. Returns {now_ms, how many are online, is cut off (1 or 0),
-- then driver, heard_ms, vehicle, class, trip, status of the trip, newest position or '' per driver heard of since}.
local function fleet(keys, args)
  local prefix = prefix_of(keys)
  local key, now = prefix .. 'presence:' .. args[1], now_ms()
  local oldest = now - args[3]
  local since = math.max(tonumber(args[2]), oldest)
  local heard = redis.call('ZRANGEBYSCORE', key, string.format('%.0f', since), '+inf', 'WITHSCORES', 'LIMIT', 0, args[4])
  local cut_off = #heard >= 2 * args[4] and 1 or 0
  local rows = {string.format('%.0f', now), redis.call('ZCOUNT', key, string.format('%.0f', oldest), '+inf'), cut_off}
  for i = 1, #heard, 2 do
    local state = redis.call('HMGET', prefix .. 'driver:' .. heard[i], 'vehicle', 'class', 'trip', 'payload')
    if state[1] then
      local status = ''
      if state[3] and state[3] ~= '' then
        status = redis.call('HGET', prefix .. 'trip:' .. state[3], 'status') or ''
      end
      local n = #rows
      rows[n + 1], rows[n + 2], rows[n + 3], rows[n + 4] = heard[i], heard[i + 1], state[1], state[2] or ''
      rows[n + 5], rows[n + 6], rows[n + 7] = state[3] or '', status, state[4] or ''
    end
  end
  return rows
end

-- args: tenant, live_ms. Returns how many drivers of the tenant are online.
local function count_online(keys, args)
  local oldest = string.format('%.0f', now_ms() - args[2])
  return redis.call('ZCOUNT', prefix_of(keys) .. 'presence:' .. args[1], oldest, '+inf')
end

-- args: most. Returns the oldest entries of the outbox.
local function outbox(keys, args)
  return redis.call('LRANGE', prefix_of(keys) .. 'outbox', 0, args[1] - 1)
end

-- args: the first entry, how many entries were passed on, then the envelopes for <prefix>domain-events, capped. Takes the entries out of the
-- outbox, unless another process did so before. Returns 1 or 0.
local function passed_on(keys, args)
  local prefix = prefix_of(keys)
  if redis.call('LINDEX', prefix .. 'outbox', 0) ~= args[1] then return 0 end
  redis.call('LTRIM', prefix .. 'outbox', args[2], -1)
  for i = 3, #args do
    redis.call('XADD', prefix .. 'domain-events', 'MAXLEN', '~', 10000, '*', 'envelope', args[i])
  end
  return 1
end

redis.register_function{function_name='loc_driver_state', callback=driver_state, flags={'no-writes'}}
redis.register_function{function_name='loc_snapshot', callback=snapshot, flags={'no-writes'}}
redis.register_function{function_name='loc_nearby', callback=nearby, flags={'no-writes'}}
redis.register_function{function_name='loc_fleet', callback=fleet, flags={'no-writes'}}
redis.register_function{function_name='loc_count_online', callback=count_online, flags={'no-writes'}}
redis.register_function{function_name='loc_outbox', callback=outbox, flags={'no-writes'}}
redis.register_function('loc_passed_on', passed_on)
