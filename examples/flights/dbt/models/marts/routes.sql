-- Each route: how often it is flown, by how many airlines, how long it takes and how late it arrives.
select
    flights.origin,
    flights.destination,
    airports.airport_name as destination_name,
    count(*) as flights,
    count(distinct carrier) as airlines,
    any_value(distance_miles) as distance_miles,
    median(air_minutes) as median_air_minutes,
    round(avg(arrival_delay_minutes), 2) as average_arrival_delay_minutes
from {{ ref('stg_flights') }} as flights
left join {{ ref('stg_airports') }} as airports on airports.airport = flights.destination
group by all
order by flights desc, flights.origin, flights.destination
