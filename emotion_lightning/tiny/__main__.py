from emotion_lightning.tiny import main

main()
