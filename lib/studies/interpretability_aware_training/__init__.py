"""Study 3: interpretability-aware robust training (Boopathy et al., ICML 2020, arXiv:2006.14748).

========================================  ====================================  =====================================
equation                                  symbol                                function
========================================  ====================================  =====================================
CAM                                       I(x, c)                               explanations.activation_maps.all_cams
1-class discrepancy                       D_1                                   fooling.discrepancy.one_class
2-class discrepancy                       D_2                                   fooling.discrepancy.two_class
Proposition 1                             D_2 >= (f_y(x) - f_y'(x)) / 2         fooling.discrepancy.proposition
discrepancy in training                   D~                                    fooling.discrepancy.all_class
Int, Int-Adv, Int2, Int2-Adv: outer loss  CE + gamma D~                         objective.train
the same: inner maximisation              x'                                    objective.inner
TRADES (arXiv:1901.08573)                 KL(f(x) || f(x'))                     attacks.losses.kl
IG-Norm (arXiv:1905.09957)                ||IG(x, x')||_1                       objective.ig_norm
attack against interpretability, AAI      D_1 - lambda max(max_j f_j - f_y, 0)  fooling.interpretation_attack.aai
Kendall's tau of maps, table 3            tau                                   measures.comparison.kendall
PGD accuracy, table 1                     -                                     attacks.robustness.robust_accuracy
Gabor noise (arXiv:1908.08016), table 2   -                                     attacks.unforeseen.gabor
the same: snow                            -                                     attacks.unforeseen.snow
the same: JPEG                            -                                     attacks.unforeseen.jpeg_attack
network Small                             -                                     networks.papers.SmallNet
network WResnet                           -                                     networks.papers.WResNet
========================================  ====================================  =====================================
"""
