{#- No two rows agree in all of these columns; two nulls do. -#}
{% test unique_rows(model, columns) %}
select {{ columns | join(', ') }}
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}
