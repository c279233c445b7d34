-- The weather at each origin, each hour.
select
    origin,
    time_hour as observed_hour,
    temp as temperature_fahrenheit,
    wind_speed as wind_speed_mph,
    precip as precipitation_inches,
    visib as visibility_miles
from {{ source('nyc', 'weather') }}
