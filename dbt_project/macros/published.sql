{#- The model's own rows as they are published; none when it is computed anew. Its yml says `meta.lakehouse.reads_itself`. -#}
{%- macro published() -%}
published.{{ model.name }}
{%- endmacro %}
