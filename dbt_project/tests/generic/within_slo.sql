{# Rows on which the condition does not hold: what has missed its objective. #}
{% test within_slo(model, condition) %}
    select * from {{ model }}
    where not ({{ condition }})
{% endtest %}
