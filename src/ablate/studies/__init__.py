"""Operations on a study that exists, one per file: its states, `retry`, `cancel`, `clean` and the like.

Functions return data or raise a UserError; `cli` prints. All of them work while the study runs and read the
run folders first and the cluster second (`states`). None but `look`, which runs a network, imports torch: a
login node has little. Only `cli` and `api` import this. Start reading in `states`.
"""
