-- One row for each flight, with a date instead of three numbers, and whether it flew at all.
select
    make_date(year, month, day) as flight_date,
    time_hour as scheduled_hour,
    carrier,
    flight as flight_number,
    tailnum as tail_number,
    origin,
    dest as destination,
    dep_delay as departure_delay_minutes,
    arr_delay as arrival_delay_minutes,
    air_time as air_minutes,
    distance as distance_miles,
    dep_time is null as is_cancelled
from {{ source('nyc', 'flights') }}
