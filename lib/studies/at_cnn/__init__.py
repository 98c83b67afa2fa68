"""Study 2: what adversarially trained CNNs look at (Zhang and Zhu, ICML 2019, arXiv:1905.09797).

=================================================  =====================================  =================================
equation                                           symbol                                 function
=================================================  =====================================  =================================
adversarial training (arXiv:1706.06083), sec. 2.1  min E max L(x + delta)                 training.objectives.adversarial
PGD (arXiv:1706.06083), sec. 2.1                   x^{t+1}                                attacks.projected.pgd
FGSM (arXiv:1412.6572), sec. 4                     x + eps sign grad_x J                  attacks.single_step.fgsm
SmoothGrad (arXiv:1706.03825)                      E = 1/n sum_i grad(x + g_i)            explanations.gradients.smoothgrad
the map as it is drawn                             |E| / its 99th percentile              measures.appearance.sensitivity
saturation                                         sign(2x - 1) |2x - 1|^(2/p) / 2 + 1/2  data.transforms.saturation
patch shuffling                                    k x k                                  data.transforms.patch_shuffle
AdaIN (arXiv:1703.06868), eq. 8                    AdaIN(x, y)                            networks.style.adain
stylising (arXiv:1703.06868), sec. 7               T(c, s, alpha)                         networks.style.stylize
style transfer's loss (arXiv:1703.06868), sec. 6   L_c + lambda L_s                       painter.loss
alignment (arXiv:1905.04172), ours here            |<x, g>| / ||g||                       measures.appearance.alignment
=================================================  =====================================  =================================
"""
