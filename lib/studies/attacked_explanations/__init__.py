"""Study 7: which explanation withstands what (Ghorbani et al., arXiv:1710.10547; Dombrowski et al., arXiv:1906.07983).

====================================================  ================================  =======================================
equation                                              symbol                            function
====================================================  ================================  =======================================
attack on a map (arXiv:1710.10547), sec. 2            max D(h(x'), h(x))                fooling.map_attack.move_maps
softplus for ReLU (arXiv:1906.07983), sec. 3          log(1 + exp(beta z)) / beta       networks.rectifiers.softplus
top-k attack (arXiv:1710.10547), sec. 2               1 - sum_{i in P} m_i              fooling.goals.top_lost
centre attack (arXiv:1710.10547), sec. 2              ||C(m) - C(m_0)||                 fooling.goals.centre_moved
target map (arXiv:1906.07983), sec. 2                 ||m - t||^2                       fooling.goals.towards
share of the map that moved (total variation)         1/2 ||m - m_0||_1                 fooling.goals.mass_moved
steps that adapt (arXiv:2003.01690), alg. 1           alpha = .75, halved lengths       fooling.map_attack.move_maps
random weights (arXiv:1810.03292), sec. 2              s(h, h_random)                    sanity.invariance.after_randomisation
deletion (arXiv:1806.07421), sec. 3.3                 AUC                               sanity.removal.deletion
hiding (arXiv:2006.14748)                             min D(x, x')                      fooling.sneaking.sneak
Proposition 1 (arXiv:2006.14748)                      1/2 (f_y(x) - f_y'(x))            fooling.discrepancy.proposition
rank correlation (Spearman 1904)                      rho                               measures.comparison.spearman
====================================================  ================================  =======================================
"""
