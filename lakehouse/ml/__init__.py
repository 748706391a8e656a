"""ML: a forecast of daily revenue that is trained, evaluated, registered, and deployed only when it earns it.

Here: the assets of `mlops`, and pure modules beside them (series, features, models, backtest, gate); MLflow's side is `registry`.
Comes from: gold/vendas_diarias, at a version that each model names. Goes to: ml/previsao_vendas, MLflow, ops/model_decisions.
Never: lets a feature see past its origin; reports folds that a recipe was chosen by; loads a model that holds untrusted types.
Rerun: the same data give the same features and the same version of the model; the champion stays.
"""
