{#- Over the rows with the newest value of a column, `part` is at least this share of `whole`. -#}
{% test share_at_least(model, part, whole, share, newest) %}
select
    sum({{ part }}) as part,
    sum({{ whole }}) as whole
from {{ model }}
where {{ newest }} = (select max({{ newest }}) from {{ model }})
having sum({{ part }}) < {{ share }} * sum({{ whole }})
{% endtest %}
