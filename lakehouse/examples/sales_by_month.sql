SELECT CAST(date_trunc('month', created_date) AS DATE) AS mes, count(*) AS linhas, sum(total) AS receita
FROM sales
GROUP BY mes
