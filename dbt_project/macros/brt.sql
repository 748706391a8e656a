{#- Kilometres between two positions given in degrees, on a sphere of the earth's mean radius. -#}
{%- macro haversine_km(latitude, longitude, other_latitude, other_longitude) -%}
2 * 6371.0088 * asin(sqrt(least(
        1.0,
        power(sin(radians({{ other_latitude }} - {{ latitude }}) / 2), 2)
        + cos(radians({{ latitude }})) * cos(radians({{ other_latitude }}))
        * power(sin(radians({{ other_longitude }} - {{ longitude }}) / 2), 2)
    )))
{%- endmacro %}

{#- Whether a position of this age in seconds is fresh: at most five minutes old, and not in the future by more. -#}
{%- macro brt_is_fresh(age) -%}
{{ age }} between -300 and 300
{%- endmacro %}

{#- Whether a bus with this speed in km/h moves. GPS noise of a standing one stays below 1 km/h. -#}
{%- macro brt_is_moving(speed) -%}
coalesce({{ speed }}, 0) >= 1
{%- endmacro %}
