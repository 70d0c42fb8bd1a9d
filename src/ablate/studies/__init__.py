"""What is done to a study that exists: `status`, `retry`, `cancel`, `logs`, `clean`, `verify`, a module each.

All of them work while the study runs, read the run folders first and the cluster second (`states`), and
import no torch: a login node has little. Start reading in `states`.
"""
