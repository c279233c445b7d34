-- Every mart counts every flight exactly once.
with counted as (
    select 'carrier_days' as mart, sum(flights) as flights from {{ ref('carrier_days') }}
    union all
    select 'routes', sum(flights) from {{ ref('routes') }}
    union all
    select 'weather_delays', sum(flights) from {{ ref('weather_delays') }}
)
select * from counted
where flights <> (select count(*) from {{ source('nyc', 'flights') }})
