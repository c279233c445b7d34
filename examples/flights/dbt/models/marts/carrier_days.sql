-- How each airline did on each day.
select
    flights.flight_date,
    flights.carrier,
    airlines.airline,
    count(*) as flights,
    count(*) filter (where is_cancelled) as cancelled,
    count(*) filter (where departure_delay_minutes > 15) as late,
    round(avg(departure_delay_minutes), 2) as average_departure_delay_minutes,
    quantile_disc(departure_delay_minutes, 0.9) as p90_departure_delay_minutes
from {{ ref('stg_flights') }} as flights
inner join {{ ref('stg_airlines') }} as airlines using (carrier)
group by all
order by flight_date, carrier
