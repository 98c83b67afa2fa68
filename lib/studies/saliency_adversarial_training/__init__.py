"""Study 5: saliency-based adversarial training (Mangla et al., ECML-PKDD 2020, arXiv:2006.07828).

================================================  =========================  ===========================================
equation                                          symbol                     function
================================================  =========================  ===========================================
SAT's algorithm: curriculum                       alpha^t                    objective.share_random
SAT's algorithm: perturbation                     delta = z or -s            objective.perturbation
SAT, PGD-SAT, TRADES-SAT: loss                    L(x + eps_0 delta, y)      objective.train
weak saliency                                     s = +1 inside, -1 outside  maps.weak
saliency of a teacher, thresholded                s in {-1, 1}^d             maps.directions
threshold                                         -                          maps.binarise
guided backpropagation (arXiv:1412.6806), fig. 1  GBP                        explanations.guided.guided_backpropagation
SmoothGrad (arXiv:1706.03825)                     -                          explanations.gradients.smoothgrad
integrated gradients (arXiv:1703.01365), sec. 3   -                          explanations.gradients.integrated_gradients
guided Grad-CAM++ (arXiv:1710.11063)              -                          explanations.guided.guided_gradcam
PGD (arXiv:1706.06083), sec. 2.1                  -                          attacks.projected.pgd
TRADES (arXiv:1901.08573): inner maximisation     x'                         objective.trades_attack
TRADES: divergence                                KL(f(x) || f(x'))          attacks.losses.kl
================================================  =========================  ===========================================
"""
