-- How the weather of the hour moves departures.
select
    flights.origin,
    case
        when weather.observed_hour is null then 'unknown'
        when precipitation_inches > 0.1 then 'heavy rain or snow'
        when precipitation_inches > 0 then 'light rain or snow'
        when visibility_miles < 3 then 'fog'
        when wind_speed_mph > 25 then 'strong wind'
        else 'fair'
    end as conditions,
    count(*) as flights,
    count(*) filter (where is_cancelled) as cancelled,
    round(avg(departure_delay_minutes), 2) as average_departure_delay_minutes
from {{ ref('stg_flights') }} as flights
left join {{ ref('stg_weather') }} as weather
    on weather.origin = flights.origin and weather.observed_hour = flights.scheduled_hour
group by all
order by origin, flights desc
