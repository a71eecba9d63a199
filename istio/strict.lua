-- Refuses REST requests that the transcoder behind it would understand by half. Envoy's transcoder drops a field of the
-- body that it does not know, takes the last of two that say different things, lets a query parameter name another
-- resource than the path does, and leaves out a parameter without "="
-- (https://github.com/envoyproxy/envoy/issues/46623, closed without a change). A misspelt `cancelBookings` or
-- `?validateOnly` would then be answered with 200, and the call would do what nobody asked for. Here each of them is
-- 400, with the name of what is wrong. It judges names and shapes alone; values are the transcoder's and the services'
-- to judge.

-- The table below is written by .ci/generated from proto/. BINDINGS: verb, path, request message, whether it has a
-- body, and the field that the path names. MESSAGES: fields by their names in JSON; their type is "" for a plain value,
-- else a message's name, and "*" before it says that it repeats.
-- begin generated
local BINDINGS = {
  {verb = "POST", path = "^/v1/hospitals$", message = "hospital.v1.CreateHospitalRequest", body = true, bound = ""},
  {verb = "GET", path = "^/v1/hospitals/[^/]+$", message = "hospital.v1.GetHospitalRequest", body = false, bound = "name"},
  {verb = "GET", path = "^/v1/hospitals$", message = "hospital.v1.ListHospitalsRequest", body = false, bound = ""},
  {verb = "PATCH", path = "^/v1/hospitals/[^/]+$", message = "hospital.v1.UpdateHospitalRequest", body = true, bound = "hospital.name"},
  {verb = "DELETE", path = "^/v1/hospitals/[^/]+$", message = "hospital.v1.DeleteHospitalRequest", body = false, bound = "name"},
  {verb = "POST", path = "^/v1/hospitals/[^/]+/slots$", message = "hospital.v1.CreateSlotRequest", body = true, bound = "parent"},
  {verb = "POST", path = "^/v1/hospitals/[^/]+/slots:batchCreate$", message = "hospital.v1.BatchCreateSlotsRequest", body = true, bound = "parent"},
  {verb = "GET", path = "^/v1/hospitals/[^/]+/slots/[^/]+$", message = "hospital.v1.GetSlotRequest", body = false, bound = "name"},
  {verb = "GET", path = "^/v1/hospitals/[^/]+/slots$", message = "hospital.v1.ListSlotsRequest", body = false, bound = "parent"},
  {verb = "POST", path = "^/v1/hospitals/[^/]+/slots/[^/]+:setCapacity$", message = "hospital.v1.SetSlotCapacityRequest", body = true, bound = "name"},
  {verb = "POST", path = "^/v1/hospitals/[^/]+/slots/[^/]+:close$", message = "hospital.v1.CloseSlotRequest", body = true, bound = "name"},
  {verb = "POST", path = "^/v1/hospitals/[^/]+/slots:batchClose$", message = "hospital.v1.BatchCloseSlotsRequest", body = true, bound = "parent"},
  {verb = "POST", path = "^/v1/hospitals/[^/]+/slots/[^/]+:reopen$", message = "hospital.v1.ReopenSlotRequest", body = true, bound = "name"},
  {verb = "GET", path = "^/v1/hospitals:searchAvailability$", message = "hospital.v1.SearchAvailabilityRequest", body = false, bound = ""},
  {verb = "GET", path = "^/v1/hospitals:watchAvailability$", message = "hospital.v1.WatchAvailabilityRequest", body = false, bound = ""},
  {verb = "POST", path = "^/v1/hospitals/[^/]+/capacityRequests$", message = "hospital.v1.CreateCapacityRequestRequest", body = true, bound = "parent"},
  {verb = "GET", path = "^/v1/hospitals/[^/]+/capacityRequests/[^/]+$", message = "hospital.v1.GetCapacityRequestRequest", body = false, bound = "name"},
  {verb = "GET", path = "^/v1/hospitals/[^/]+/capacityRequests$", message = "hospital.v1.ListCapacityRequestsRequest", body = false, bound = "parent"},
  {verb = "POST", path = "^/v1/hospitals/[^/]+/capacityRequests/[^/]+:approve$", message = "hospital.v1.ApproveCapacityRequestRequest", body = true, bound = "name"},
  {verb = "POST", path = "^/v1/hospitals/[^/]+/capacityRequests/[^/]+:reject$", message = "hospital.v1.RejectCapacityRequestRequest", body = true, bound = "name"},
  {verb = "GET", path = "^/v1/marketing/demandSignals$", message = "marketing.v1.ListDemandSignalsRequest", body = false, bound = ""},
  {verb = "POST", path = "^/v1/marketing/hospitals/[^/]+/slots/[^/]+:proposeCapacityIncrease$", message = "marketing.v1.ProposeCapacityIncreaseRequest", body = true, bound = "slot"},
  {verb = "GET", path = "^/v1/customers/[^/]+/myPage$", message = "mypage.v1.GetMyPageRequest", body = false, bound = "name"},
  {verb = "GET", path = "^/v1/customers/[^/]+/myPage/items$", message = "mypage.v1.ListMyPageItemsRequest", body = false, bound = "parent"},
  {verb = "GET", path = "^/v1/customers/[^/]+/myPage:watch$", message = "mypage.v1.WatchMyPageRequest", body = false, bound = "name"},
  {verb = "GET", path = "^/v1/reservations/[^/]+$", message = "reservation.v1.GetReservationRequest", body = false, bound = "name"},
  {verb = "GET", path = "^/v1/reservations$", message = "reservation.v1.ListReservationsRequest", body = false, bound = ""},
  {verb = "GET", path = "^/v1/reservations/[^/]+/history$", message = "reservation.v1.ListReservationHistoryRequest", body = false, bound = "parent"},
  {verb = "POST", path = "^/v1/screenings$", message = "screening.v1.CreateScreeningRequest", body = true, bound = ""},
  {verb = "GET", path = "^/v1/screenings/[^/]+$", message = "screening.v1.GetScreeningRequest", body = false, bound = "name"},
  {verb = "GET", path = "^/v1/screenings$", message = "screening.v1.ListScreeningsRequest", body = false, bound = ""},
  {verb = "PATCH", path = "^/v1/screenings/[^/]+$", message = "screening.v1.UpdateScreeningRequest", body = true, bound = "screening.name"},
  {verb = "POST", path = "^/v1/screenings/[^/]+:cancel$", message = "screening.v1.CancelScreeningRequest", body = true, bound = "name"},
  {verb = "POST", path = "^/v1/screenings/[^/]+:reschedule$", message = "screening.v1.RescheduleScreeningRequest", body = true, bound = "name"},
  {verb = "POST", path = "^/v1/screenings/[^/]+:complete$", message = "screening.v1.CompleteScreeningRequest", body = true, bound = "name"},
  {verb = "POST", path = "^/v1/screenings/[^/]+:markNoShow$", message = "screening.v1.MarkNoShowRequest", body = true, bound = "name"},
}
local MESSAGES = {
  ["hospital.v1.ApproveCapacityRequestRequest"] = {etag = "", name = "", note = "", requestId = ""},
  ["hospital.v1.BatchCloseSlotsRequest"] = {cancelBookings = "", parent = "", ranges = "*hospital.v1.DateRange", reason = "", requestId = "", validateOnly = ""},
  ["hospital.v1.BatchCreateSlotsRequest"] = {parent = "", requestId = "", requests = "*hospital.v1.CreateSlotRequest", validateOnly = ""},
  ["hospital.v1.BookingPolicy"] = {cancellationCutoff = "", customerLimit = "", maxAdvance = "", minNotice = "", promotionMinNotice = "", rescheduleLimit = "", waitlistLimit = ""},
  ["hospital.v1.CapacityRequest"] = {additionalCapacity = "", createTime = "", decisionNote = "", etag = "", expireTime = "", justification = "", name = "", slot = "", state = ""},
  ["hospital.v1.CloseSlotRequest"] = {cancelBookings = "", etag = "", name = "", reason = "", requestId = "", validateOnly = ""},
  ["hospital.v1.CreateCapacityRequestRequest"] = {capacityRequest = "hospital.v1.CapacityRequest", parent = "", requestId = ""},
  ["hospital.v1.CreateHospitalRequest"] = {hospital = "hospital.v1.Hospital", hospitalId = "", initialSlots = "*hospital.v1.Slot", requestId = ""},
  ["hospital.v1.CreateSlotRequest"] = {parent = "", repeat = "hospital.v1.DateRepetition", requestId = "", slot = "hospital.v1.Slot"},
  ["hospital.v1.DateRange"] = {repeat = "hospital.v1.DateRepetition", startDate = "google.type.Date"},
  ["hospital.v1.DateRepetition"] = {daysOfWeek = "*", endDate = "google.type.Date"},
  ["hospital.v1.DeleteHospitalRequest"] = {etag = "", force = "", name = "", reason = "", requestId = "", validateOnly = ""},
  ["hospital.v1.GetCapacityRequestRequest"] = {name = ""},
  ["hospital.v1.GetHospitalRequest"] = {name = ""},
  ["hospital.v1.GetSlotRequest"] = {name = ""},
  ["hospital.v1.Hospital"] = {activeBookingCount = "", bookingPolicy = "hospital.v1.BookingPolicy", createTime = "", deleteTime = "", displayName = "", etag = "", name = "", revocationProgress = "hospital.v1.RevocationProgress", state = "", timeZone = "", uid = "", updateTime = ""},
  ["hospital.v1.ListCapacityRequestsRequest"] = {filter = "", pageSize = "", pageToken = "", parent = ""},
  ["hospital.v1.ListHospitalsRequest"] = {filter = "", pageSize = "", pageToken = "", showDeleted = ""},
  ["hospital.v1.ListSlotsRequest"] = {endDate = "google.type.Date", pageSize = "", pageToken = "", parent = "", startDate = "google.type.Date"},
  ["hospital.v1.RejectCapacityRequestRequest"] = {etag = "", name = "", note = "", requestId = ""},
  ["hospital.v1.ReopenSlotRequest"] = {etag = "", name = "", requestId = ""},
  ["hospital.v1.RevocationProgress"] = {revoked = "", total = ""},
  ["hospital.v1.SearchAvailabilityRequest"] = {endDate = "google.type.Date", hospitals = "*", minRemaining = "", pageSize = "", pageToken = "", startDate = "google.type.Date"},
  ["hospital.v1.SetSlotCapacityRequest"] = {capacity = "", delta = "", etag = "", name = "", requestId = ""},
  ["hospital.v1.Slot"] = {bookedCount = "", capacity = "", createTime = "", date = "google.type.Date", etag = "", name = "", remainingCount = "", revocationProgress = "hospital.v1.RevocationProgress", state = "", updateTime = "", version = "", waitlistedCount = ""},
  ["hospital.v1.UpdateHospitalRequest"] = {hospital = "hospital.v1.Hospital", updateMask = ""},
  ["hospital.v1.WatchAvailabilityRequest"] = {endDate = "google.type.Date", hospitals = "*", resumeToken = "", startDate = "google.type.Date"},
  ["marketing.v1.ListDemandSignalsRequest"] = {filter = "", orderBy = "", pageSize = "", pageToken = ""},
  ["marketing.v1.ProposeCapacityIncreaseRequest"] = {additionalCapacity = "", justification = "", requestId = "", slot = ""},
  ["mypage.v1.GetMyPageRequest"] = {minConsistencyToken = "", name = "", showWaitlisted = ""},
  ["mypage.v1.ListMyPageItemsRequest"] = {minConsistencyToken = "", pageSize = "", pageToken = "", parent = "", showWaitlisted = ""},
  ["mypage.v1.WatchMyPageRequest"] = {name = "", resumeToken = "", showWaitlisted = ""},
  ["reservation.v1.GetReservationRequest"] = {minConsistencyToken = "", name = ""},
  ["reservation.v1.ListReservationHistoryRequest"] = {pageSize = "", pageToken = "", parent = ""},
  ["reservation.v1.ListReservationsRequest"] = {filter = "", orderBy = "", pageSize = "", pageToken = ""},
  ["screening.v1.CancelScreeningRequest"] = {etag = "", name = "", reason = "", requestId = ""},
  ["screening.v1.CompleteScreeningRequest"] = {etag = "", name = "", requestId = ""},
  ["screening.v1.CreateScreeningRequest"] = {acceptPending = "", joinWaitlist = "", requestId = "", screening = "screening.v1.Screening", validateOnly = ""},
  ["screening.v1.GetScreeningRequest"] = {name = ""},
  ["screening.v1.ListScreeningsRequest"] = {filter = "", orderBy = "", pageSize = "", pageToken = "", showWaitlisted = ""},
  ["screening.v1.MarkNoShowRequest"] = {etag = "", name = "", requestId = ""},
  ["screening.v1.RescheduleScreeningRequest"] = {etag = "", name = "", reason = "", requestId = "", slot = "", validateOnly = ""},
  ["screening.v1.Screening"] = {claimGeneration = "", consistencyToken = "", createTime = "", customer = "", customerDisplayName = "", date = "google.type.Date", etag = "", hospitalDisplayName = "", name = "", promotionCloseTime = "", rescheduleCount = "", slot = "", state = "", stateMessage = "", stateReason = "", timeZone = "", updateTime = "", version = "", waitlistPosition = ""},
  ["screening.v1.UpdateScreeningRequest"] = {screening = "screening.v1.Screening", updateMask = ""},
  ["google.type.Date"] = {day = "", month = "", year = ""},
}
-- end generated

local DEEPEST = 16

-- gRPC goes past the transcoder, and by the same test past this filter.
local function is_grpc(content_type)
  return content_type == "application/grpc" or (content_type or ""):sub(1, 17) == "application/grpc+"
end

local function find_binding(verb, path)
  for _, binding in ipairs(BINDINGS) do
    if binding.verb == verb and path:find(binding.path) then
      return binding
    end
  end
end

-- The contract's names are understood as well: cancel_bookings is cancelBookings.
local function in_json(name)
  return (name:gsub("_(%l)", string.upper))
end

local function joined(path, name)
  return path == "" and name or path .. "." .. name
end

local function wrong(field, message)
  error({field = field, message = message}, 0)
end

local function unknown(message, field)
  local names = {}
  for name in pairs(MESSAGES[message]) do
    names[#names + 1] = name
  end
  table.sort(names)
  local has = #names == 0 and "it has no fields" or "its fields are " .. table.concat(names, ", ")
  wrong(field, field .. " is not a field of " .. message .. "; " .. has)
end

local function type_of(message, name, field)
  local kind = MESSAGES[message][in_json(name)]
  if not kind then
    unknown(message, field)
  end
  return kind:match("^%*?(.*)$"), kind:sub(1, 1) == "*"
end

local function skip(text, at)
  return text:match("^[ \t\r\n]*()", at)
end

local function not_json(field, at)
  wrong(field, "the body is not JSON at byte " .. at .. (field == "" and "" or ", in " .. field))
end

local read

local function read_object(text, at, message, field, depth)
  local seen = {}
  at = skip(text, at + 1)
  if text:sub(at, at) == "}" then
    return at + 1
  end
  while true do
    local name, after = text:match('^"([^"\\%z\1-\31]*)"[ \t\r\n]*:()', at)
    if not name then
      not_json(field, at)
    end
    local inner = joined(field, name)
    local kind, repeats = type_of(message, name, inner)
    if seen[in_json(name)] then
      wrong(inner, inner .. " is given twice")
    end
    seen[in_json(name)] = true
    at = skip(text, read(text, after, kind, repeats, inner, depth + 1))
    local separator = text:sub(at, at)
    if separator == "}" then
      return at + 1
    elseif separator ~= "," then
      not_json(field, at)
    end
    at = skip(text, at + 1)
  end
end

local function read_list(text, at, kind, field, depth)
  at = skip(text, at + 1)
  if text:sub(at, at) == "]" then
    return at + 1
  end
  while true do
    at = skip(text, read(text, at, kind, false, field, depth + 1))
    local separator = text:sub(at, at)
    if separator == "]" then
      return at + 1
    elseif separator ~= "," then
      not_json(field, at)
    end
    at = at + 1
  end
end

local function read_string(text, at, field)
  local from = at
  while true do
    local stop = text:find('["\\%z\1-\31]', at + 1)
    local found = stop and text:sub(stop, stop)
    if found == '"' then
      return stop + 1
    elseif found ~= "\\" then
      not_json(field, from)
    end
    at = stop + 1 -- what is escaped is no end
  end
end

local function read_plain(text, at, field)
  if text:sub(at, at) == '"' then
    return read_string(text, at, field)
  end
  for _, word in ipairs({"true", "false", "null"}) do
    if text:sub(at, at + #word - 1) == word then
      return at + #word
    end
  end
  return text:match("^%-?%d[%d.eE+-]*()", at) or not_json(field, at)
end

-- Reads the value at a place and returns the place after it.
read = function(text, at, kind, repeats, field, depth)
  if depth > DEEPEST then
    wrong(field, "the body is nested too deeply")
  end
  at = skip(text, at)
  local first = text:sub(at, at)
  if first == "[" then
    if not repeats then
      wrong(field, (field == "" and "the body" or field) .. " is not a list")
    end
    return read_list(text, at, kind, field, depth)
  elseif first == "{" then
    if kind == "" then
      wrong(field, field .. " is not an object")
    end
    return read_object(text, at, kind, field, depth)
  elseif kind ~= "" and text:sub(at, at + 3) ~= "null" then
    wrong(field, (field == "" and "the body" or field) .. " has to be an object, " .. kind)
  end
  return read_plain(text, at, field)
end

local function check_body(text, message)
  local at = skip(text, read(text, 1, message, false, "", 1))
  if at <= #text then
    not_json("", at)
  end
end

local function check_query(query, binding)
  local seen = {}
  for part in query:gmatch("[^&]+") do
    local name = part:match("^([%w_.]+)=")
    if not name then
      local given = part:match("^[^=]*")
      wrong(given, "the query has " .. given .. " without a value, or a name that no field has: write name=value")
    end
    local message, repeats = binding.message, false
    for step in name:gmatch("[^.]+") do
      if message == "" then
        wrong(name, name .. " is not a field of " .. binding.message)
      end
      message, repeats = type_of(message, step, name)
    end
    name = in_json(name)
    if name == binding.bound then
      wrong(name, name .. " is said by the path")
    elseif seen[name] and not repeats then
      wrong(name, name .. " is given twice")
    end
    seen[name] = true
  end
end

local function refuse(handle, status, field, message)
  -- errors.yaml makes JSON of it.
  handle:streamInfo():dynamicMetadata():set("checkup.strict", "field", field)
  handle:respond({[":status"] = status}, message)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if is_grpc(headers:get("content-type")) then
    return
  end
  local verb, target = headers:get(":method"), headers:get(":path")
  local path, query = target:match("^([^?]*)%??(.*)$")
  local binding = find_binding(verb, path)
  if not binding then
    refuse(handle, "404", "", "no method of the contract is " .. verb .. " " .. path)
    return
  end
  local body = handle:body()
  local text = body and body:length() > 0 and body:getBytes(0, body:length()) or ""
  local fine, problem = pcall(function()
    check_query(query, binding)
    if binding.body and text ~= "" then
      check_body(text, binding.message)
    elseif text ~= "" then
      wrong("", verb .. " " .. path .. " takes no body: say it in the query")
    end
  end)
  if not fine then
    if type(problem) ~= "table" then
      error(problem, 0)
    end
    refuse(handle, "400", problem.field, problem.message)
  end
end
